"""Targets: what `target=` may name in a recipe, and what a method needs of the one it is given."""

from __future__ import annotations

from typing import Annotated, Protocol, runtime_checkable

from jaxtyping import Float, Int, Num
from pydantic import Field
from torch import Tensor

from tubelet.spec import ByKind
from tubelet.targets.features import Features
from tubelet.targets.hog import Hog
from tubelet.targets.pixels import FramePixels, NormalisedPixels, Pixels
from tubelet.targets.pseudo_labels import PseudoLabels
from tubelet.targets.tokens import Tokens
from tubelet.types import ClipShape, Cube

TargetSpec = Annotated[
    NormalisedPixels | Pixels | FramePixels | Hog | Features | PseudoLabels | Tokens,
    Field(discriminator="kind"),
    ByKind,
]
"""What a masked model predicts, as a recipe says it. Those of a `FrozenSpec` need their network to be read first."""


@runtime_checkable
class Target(Protocol):
    """What a masked model predicts, ready to be asked: a spec itself, or an `FrozenTarget`."""

    @property
    def kind(self) -> str:
        """As a recipe names it."""

    def width(self, cube: Cube) -> int:
        """Numbers that are predicted for a token."""

    def rows(self, video: Num[Tensor, "B C T H W"], wanted: Int[Tensor, "B K"], cube: Cube) -> Num[Tensor, "B K ..."]:
        """Targets of the wanted tokens; no gradient. `video` is uint8 or float in 0..255."""

    def peak_bytes(self, clip: ClipShape, cube: Cube, *, rows: int, clips: int, on_cpu: bool) -> int:
        """Most bytes that `rows` holds at once for so many clips with so many wanted tokens in all, result included."""

    def loss(
        self, prediction: Float[Tensor, "B K P"], target: Num[Tensor, "B K ..."], weight: Float[Tensor, "B K"]
    ) -> Float[Tensor, ""]:
        """How far off, mean over tokens by weight."""
