"""Rules of what is hidden from the encoder: specs that are called, no weights."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Bool
from pydantic import Field

from tubelet.masks.base import MaskSpec, Ratio, pick
from tubelet.types import Grid


class Tube(MaskSpec):
    """One spatial pattern for all frames (VideoMAE, arXiv:2203.12602, section 3.3).

    Hides int(ratio * h * w) places, as the authors' generator does: 0.9 of 14x14 is 176 of 196.
    """

    kind: Literal["tube"] = "tube"
    ratio: Ratio = 0.9

    def __call__(self, grid: Grid, rng: np.random.Generator) -> Bool[np.ndarray, "t h w"]:
        """True = hidden. ValueError where this ratio hides nothing, or everything, on this grid."""
        place = pick(grid.h * grid.w, rng, ratio=self.ratio, name=f"mask {self.kind}").reshape(1, grid.h, grid.w)
        return np.repeat(place, grid.t, axis=0)


class Random(MaskSpec):
    """int(ratio * N) tokens anywhere in space and time (MAE-ST, arXiv:2205.09113, section 3.2)."""

    kind: Literal["random"] = "random"
    ratio: Ratio = 0.9

    def __call__(self, grid: Grid, rng: np.random.Generator) -> Bool[np.ndarray, "t h w"]:
        """True = hidden. ValueError where this ratio hides nothing, or everything, on this grid."""
        return pick(grid.tokens, rng, ratio=self.ratio, name=f"mask {self.kind}").reshape(grid)


class Frame(MaskSpec):
    """Whole time steps, int(ratio * t) of them (VideoMAE, arXiv:2203.12602, table 1b).

    The default hides 7 of 8 time steps. Each step is `tubelet` frames long. MaskFeat (arXiv:2112.09133) takes the
    whole number next to ratio * t: `count: nearest`.
    """

    kind: Literal["frame"] = "frame"
    ratio: Ratio = 0.875
    count: Literal["below", "nearest"] = Field(default="below", description="which whole number of time steps")

    def __call__(self, grid: Grid, rng: np.random.Generator) -> Bool[np.ndarray, "t h w"]:
        """True = hidden. ValueError where this ratio hides nothing, or everything, on this grid."""
        count = round(self.ratio * grid.t) if self.count == "nearest" else None
        steps = pick(grid.t, rng, ratio=self.ratio, name=f"mask {self.kind}", count=count).reshape(grid.t, 1, 1)
        return np.broadcast_to(steps, grid).copy()
