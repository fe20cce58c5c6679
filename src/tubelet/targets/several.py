"""Several weighted targets of one run, which a model predicts side by side for each token."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Final, NamedTuple

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from tubelet.targets.base import Picture, Score
from tubelet.targets.frozen import FrozenTarget
from tubelet.targets.protocol import Target
from tubelet.types import ClipShape, Cube

MOST_IDS: Final = 2**24
"""Float32 holds the whole numbers up to here."""


class TargetPart(NamedTuple):
    """One of several targets: its name in the log, and what its loss is multiplied by."""

    name: str
    target: Target
    weight: float


class SeveralTargets:
    """Targets behind one: their widths and peaks add up, their losses by weight.

    Rows are one tensor [B,K,R] in float32, those of the targets side by side. The id of a token is one number among
    them, and exact: ValueError for a vocabulary of more than 2^24. Predictions are as wide as all of them together, in
    the same order. Several that ask the same network ask it once each.
    """

    def __init__(self, parts: Sequence[TargetPart], cube: Cube) -> None:
        self.parts = tuple(parts)
        widths = [part.target.width(cube) for part in parts]
        numbers = [1 if part.target.has_ids else width for part, width in zip(parts, widths, strict=True)]
        for part, width in zip(parts, widths, strict=True):
            if part.target.has_ids and width > MOST_IDS:
                raise ValueError(f"target {part.target.kind}: {width} ids are too many beside other targets")
        self._width, self._numbers = sum(widths), sum(numbers)
        self._columns, self._places = _slices(widths), _slices(numbers)

    @property
    def kind(self) -> str:
        """The kinds of all."""
        return " + ".join(part.target.kind for part in self.parts)

    @property
    def teacher(self) -> str | None:
        """That of the first that has one."""
        return next((part.target.teacher for part in self.parts if part.target.teacher is not None), None)

    @property
    def picture(self) -> Picture | None:
        """That of `shown`."""
        return self.shown.picture

    @property
    def lacks_colours(self) -> bool:
        """Whether `shown` does."""
        return self.shown.lacks_colours

    @property
    def has_ids(self) -> bool:
        """Not as rows are put together here."""
        return False

    @property
    def networks(self) -> tuple[FrozenTarget, ...]:
        """Of all."""
        return tuple(network for part in self.parts for network in part.target.networks)

    @property
    def shown(self) -> Target:
        """The first that has a picture, else the first."""
        return self.parts[self._shown].target

    @property
    def shown_columns(self) -> slice:
        """The numbers for `shown`."""
        return self._columns[self._shown]

    @property
    def _shown(self) -> int:
        return next((place for place, part in enumerate(self.parts) if part.target.picture is not None), 0)

    def width(self, cube: Cube) -> int:
        """Numbers that are predicted for a token, for all targets; they were made ready for this cube."""
        del cube
        return self._width

    def rows(self, video: Num[Tensor, "B C T H W"], wanted: Int[Tensor, "B K"], cube: Cube) -> Float[Tensor, "B K R"]:
        """Targets of the wanted tokens, float32. `video` is uint8 or float in 0..255."""
        each = [part.target.rows(video, wanted, cube) for part in self.parts]
        numbers = [
            rows.unsqueeze(-1).float() if part.target.has_ids else rows
            for part, rows in zip(self.parts, each, strict=True)
        ]
        return torch.cat(numbers, dim=-1)

    def peak_bytes(self, clip: ClipShape, cube: Cube, *, rows: int, clips: int, on_cpu: bool) -> int:
        """Those of the largest, beside the results of all; or all results twice, while they are put together."""
        peaks = [part.target.peak_bytes(clip, cube, rows=rows, clips=clips, on_cpu=on_cpu) for part in self.parts]
        results = 4 * rows * self._numbers
        return results + max(*peaks, results)

    def loss(
        self, prediction: Float[Tensor, "B K P"], target: Float[Tensor, "B K R"], weight: Float[Tensor, "B K"]
    ) -> Float[Tensor, ""]:
        """The sum of the losses by weight; each is a mean over tokens."""
        return self.score(prediction, target, weight).loss

    def score(
        self, prediction: Float[Tensor, "B K P"], target: Float[Tensor, "B K R"], weight: Float[Tensor, "B K"]
    ) -> Score:
        """The loss, and that of each target without its weight."""
        found: dict[str, Tensor] = {}
        total = torch.zeros((), device=prediction.device)
        for part, columns, places in zip(self.parts, self._columns, self._places, strict=True):
            rows = target[..., places]
            true = rows.squeeze(-1).long() if part.target.has_ids else rows
            loss = part.target.loss(prediction[..., columns], true, weight)
            total = total + part.weight * loss
            found[f"loss_{part.name}"] = loss.detach()
        return Score(total, found)


def _slices(widths: Sequence[int]) -> list[slice]:
    """Side by side, from 0."""
    return [slice(first, last) for first, last in pairwise(accumulate(widths, initial=0))]
