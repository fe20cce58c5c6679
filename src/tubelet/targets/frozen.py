"""Targets that a frozen network gives: what a recipe says of them, and the network that is asked.

A recipe names the network (`FrozenSpec`); whoever reads files makes an `FrozenTarget` of it, which methods take.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NoReturn, TypeVar

import torch
from jaxtyping import Float, Int, Num
from pydantic import Field
from torch import Tensor, nn

from tubelet.nn.frozen import Frozen
from tubelet.spec import Spec, replace
from tubelet.targets.base import Asks, Picture, Score, TargetBase
from tubelet.types import ClipShape, Cube

FrozenT = TypeVar("FrozenT", bound="FrozenSpec")


class NotReady(Spec):
    """What a recipe says of targets that cannot be asked before `ready`, for which their networks are read."""

    kind: str

    @property
    def networks(self) -> tuple[()]:
        """None yet."""
        return ()

    def width(self, cube: Cube) -> int:
        """ValueError: only its network knows."""
        self._unread(cube)

    def rows(self, video: Num[Tensor, "B C T H W"], wanted: Int[Tensor, "B K"], cube: Cube) -> Num[Tensor, "B K ..."]:
        """ValueError: only its network knows."""
        self._unread(video, wanted, cube)

    def peak_bytes(self, clip: ClipShape, cube: Cube, *, rows: int, clips: int, on_cpu: bool) -> int:
        """ValueError: only its network knows."""
        self._unread(clip, cube, rows, clips, on_cpu)

    def _unread(self, *unused: object) -> NoReturn:
        del unused
        raise ValueError(f"target {self.kind}: its network was not read (tubelet.weights.teachers reads it)")


class FrozenSpec(NotReady, TargetBase):
    """What a recipe says of such a target. It has no rows of its own: they are asked of the network.

    A subclass has `kind`, `asks`, `select` and `loss`.
    """

    asks: ClassVar[Asks]
    teacher: str | None = Field(default=None, description="network that gives the targets: a run, a file, a folder")

    def with_teacher(self: FrozenT, teacher: str) -> FrozenT:
        """A copy that asks this teacher, unless it names one already, or asks for what no run of ours has."""
        return self if self.teacher is not None or self.asks == "ids" else replace(self, teacher=teacher)

    def ready(self, read: Callable[[Any], FrozenTarget], cube: Cube) -> FrozenTarget:
        """What `read` makes of it."""
        del cube
        return read(self)

    def select(self, answer: Num[Tensor, "B ..."], wanted: Int[Tensor, "B K"]) -> Num[Tensor, "B K ..."]:
        """Targets of the wanted tokens from what the network says of a batch."""
        raise NotImplementedError


class FrozenTarget(Frozen):
    """A target that can be asked for: a spec, and the network it names.

    `network` is a module from a video (uint8, or float in 0..255) to what `spec.select` takes; `file` is where it came
    from, and `notes` are lines for the user.
    """

    def __init__(
        self, spec: FrozenSpec, network: nn.Module, *, width: int, file: Path, notes: tuple[str, ...] = ()
    ) -> None:
        super().__init__(network)
        self.spec = spec
        self.file = file
        self.notes = notes
        self._width = width

    @property
    def kind(self) -> str:
        """As the recipe names it."""
        return self.spec.kind

    @property
    def teacher(self) -> str | None:
        """Where its network was read, as the recipe says it."""
        return self.spec.teacher

    @property
    def picture(self) -> Picture | None:
        """As the spec says."""
        return self.spec.picture

    @property
    def lacks_colours(self) -> bool:
        """As the spec says."""
        return self.spec.lacks_colours

    @property
    def has_ids(self) -> bool:
        """As the spec says."""
        return self.spec.has_ids

    @property
    def networks(self) -> tuple[FrozenTarget, ...]:
        """Itself."""
        return (self,)

    @property
    def shown(self) -> FrozenTarget:
        """Itself."""
        return self

    @property
    def shown_columns(self) -> slice:
        """All."""
        return slice(None)

    def width(self, cube: Cube) -> int:
        """Numbers that a model predicts for a token; the network was read for this cube."""
        del cube
        return self._width

    @torch.no_grad()
    def rows(self, video: Num[Tensor, "B C T H W"], wanted: Int[Tensor, "B K"], cube: Cube) -> Num[Tensor, "B K ..."]:
        """Targets of the wanted tokens: numbers in float32, or int64 ids. `video` is uint8 or float in 0..255.

        The network computes in the precision of the run, but for tokenizers, which compute in float32.
        """
        del cube
        return self.spec.select(self.ask(video), wanted)

    def peak_bytes(self, clip: ClipShape, cube: Cube, *, rows: int, clips: int, on_cpu: bool) -> int:
        """Of the wanted rows and their normalised form; what the network itself needs is not known before it runs."""
        del clip, cube, clips, on_cpu
        return 8 * rows * self._width

    def loss(
        self, prediction: Float[Tensor, "B K P"], target: Num[Tensor, "B K ..."], weight: Float[Tensor, "B K"]
    ) -> Float[Tensor, ""]:
        """As the spec says; a mean over tokens by weight."""
        return self.spec.loss(prediction, target, weight)

    def score(
        self, prediction: Float[Tensor, "B K P"], target: Num[Tensor, "B K ..."], weight: Float[Tensor, "B K"]
    ) -> Score:
        """The loss, and nothing beside it."""
        return self.spec.score(prediction, target, weight)


class MissingTeacher(nn.Module):
    """Stands for the network of a model that is used and not trained: it need not be there any more."""

    def forward(self, video: Num[Tensor, "B C T H W"]) -> Tensor:
        """ValueError."""
        del video
        raise ValueError("the network that gave this model its targets was not read: there are no targets without it")


def without_network(spec: FrozenSpec, *, width: int, file: Path) -> FrozenTarget:
    """The target of a trained model: as wide as its weights say, and without rows."""
    return FrozenTarget(spec, MissingTeacher(), width=width, file=file)


def of_tokens(answer: Num[Tensor, "B N *D"], wanted: Int[Tensor, "B K"]) -> Num[Tensor, "B K *D"]:
    """The wanted ones of all tokens of the grid."""
    clip = torch.arange(len(answer), device=answer.device).unsqueeze(1)
    return answer[clip, wanted]
