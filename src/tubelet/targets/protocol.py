"""What a masked method, a plan and a picture need of a target that is ready to be asked."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int, Num
from torch import Tensor

from tubelet.targets.base import Picture, Score
from tubelet.targets.frozen import FrozenTarget
from tubelet.types import ClipShape, Cube


@runtime_checkable
class Target(Protocol):
    """What a masked model predicts: the spec itself, a `FrozenTarget`, or several of them (`SeveralTargets`)."""

    @property
    def kind(self) -> str:
        """As a recipe names it."""

    @property
    def teacher(self) -> str | None:
        """The network that is asked, as the recipe names it; None where the clip is enough."""

    @property
    def picture(self) -> Picture | None:
        """How it is drawn; None where it cannot be."""

    @property
    def lacks_colours(self) -> bool:
        """Whether its rows say nothing of a cube's own colours."""

    @property
    def has_ids(self) -> bool:
        """Whether a row is one number of a vocabulary."""

    @property
    def networks(self) -> tuple[FrozenTarget, ...]:
        """The targets in it that ask a network: what a run writes down of its teachers."""

    @property
    def shown(self) -> Target:
        """The target that pictures are of: itself, or one of several."""

    @property
    def shown_columns(self) -> slice:
        """Which numbers of a prediction are for `shown`."""

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

    def score(
        self, prediction: Float[Tensor, "B K P"], target: Num[Tensor, "B K ..."], weight: Float[Tensor, "B K"]
    ) -> Score:
        """The loss, and what to log beside it."""
