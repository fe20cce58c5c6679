"""Which tokens the decoder predicts, whatever is in the clip, and which of these enter the loss."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Bool
from pydantic import model_validator

from tubelet.masks.base import DecodeSpec, LossOn, Spared, pick
from tubelet.types import Grid


class All(DecodeSpec):
    """The decoder predicts every hidden token and no other (VideoMAE)."""

    kind: Literal["all"] = "all"

    def __call__(
        self, grid: Grid, hidden: Bool[np.ndarray, "t h w"], rng: np.random.Generator
    ) -> Bool[np.ndarray, "t h w"]:
        """True = predicted. `grid` and `rng` are what rules that draw need; this one does not."""
        del grid, rng
        return hidden.copy()

    def count(self, grid: Grid, hidden_count: int) -> int:
        """As many as are hidden."""
        del grid
        return hidden_count


class RunningCell(DecodeSpec):
    """Cells of 2x2 places whose left-out places run round over time (VideoMAE V2, arXiv:2303.16727, section 3.2).

    int(4 * ratio) of the four places are left out: 1, 2 or 3. Each draw is one of four patterns; in four time steps
    every place is left out equally often. Tokens that the encoder sees are predicted, too, but do not enter the loss.
    """

    kind: Literal["running_cell"] = "running_cell"
    ratio: Spared = 0.5

    @model_validator(mode="after")
    def _leaves_out_some(self) -> RunningCell:
        if int(4 * self.ratio) == 0:
            raise ValueError(f"ratio {self.ratio} of a cell of 4 places leaves out none; choose 0.25, 0.5 or 0.75")
        return self

    def __call__(
        self, grid: Grid, hidden: Bool[np.ndarray, "t h w"], rng: np.random.Generator
    ) -> Bool[np.ndarray, "t h w"]:
        """True = predicted. ValueError where the grid has no whole cells. What is hidden makes no difference."""
        del hidden
        return self.pattern(grid, int(rng.integers(4)))

    def count(self, grid: Grid, hidden_count: int) -> int:
        """The same in every pattern: each cell keeps equally many places in each time step."""
        del hidden_count
        return grid.tokens // 4 * (4 - int(4 * self.ratio))

    def pattern(self, grid: Grid, start: int) -> Bool[np.ndarray, "t h w"]:
        """The pattern `start`, 0 to 3. The queue has moved once before the first time step, as the authors'."""
        if grid.h % 2 or grid.w % 2:
            raise ValueError(f"decode running_cell: {grid.h} x {grid.w} tokens have no whole cells of 2 x 2")
        queue = np.arange(4) >= int(4 * self.ratio)
        cells = [np.roll(queue, -(start + step + 1)).reshape(2, 2) for step in range(grid.t)]
        return np.tile(np.stack(cells), (1, grid.h // 2, grid.w // 2))


class FrameDecode(DecodeSpec):
    """All tokens of some time steps; int(ratio * t) steps are left out (VideoMAE V2, arXiv:2303.16727, ablation)."""

    kind: Literal["frame"] = "frame"
    ratio: Spared = 0.5

    def __call__(
        self, grid: Grid, hidden: Bool[np.ndarray, "t h w"], rng: np.random.Generator
    ) -> Bool[np.ndarray, "t h w"]:
        """True = predicted, hidden or not. ValueError where this ratio leaves out nothing."""
        del hidden
        left_out = pick(grid.t, rng, ratio=self.ratio, name=f"decode {self.kind}", verb="leaves out")
        return np.broadcast_to(~left_out.reshape(grid.t, 1, 1), grid).copy()

    def count(self, grid: Grid, hidden_count: int) -> int:
        """Those of the steps that are left."""
        del hidden_count
        return (grid.t - int(self.ratio * grid.t)) * grid.h * grid.w


class RandomDecode(DecodeSpec):
    """Tokens anywhere; int(ratio * N) are left out (VideoMAE V2, arXiv:2303.16727, ablation)."""

    kind: Literal["random"] = "random"
    ratio: Spared = 0.5

    def __call__(
        self, grid: Grid, hidden: Bool[np.ndarray, "t h w"], rng: np.random.Generator
    ) -> Bool[np.ndarray, "t h w"]:
        """True = predicted, hidden or not. ValueError where this ratio leaves out nothing."""
        del hidden
        return ~pick(grid.tokens, rng, ratio=self.ratio, name=f"decode {self.kind}", verb="leaves out").reshape(grid)

    def count(self, grid: Grid, hidden_count: int) -> int:
        """Those that are left."""
        del hidden_count
        return grid.tokens - int(self.ratio * grid.tokens)


def scored(
    hidden: Bool[np.ndarray, "t h w"], decoded: Bool[np.ndarray, "t h w"], loss_on: LossOn
) -> Bool[np.ndarray, "t h w"]:
    """Tokens that enter the loss. "decoded" is the ablation of VideoMAE V2: the encoder has seen some of them."""
    return decoded.copy() if loss_on == "decoded" else hidden & decoded
