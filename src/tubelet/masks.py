"""Which tokens are hidden from the encoder, and which the decoder predicts: specs that are called, no weights."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from jaxtyping import Bool
from pydantic import Field

from tubelet.spec import ByKind, Spec
from tubelet.types import Grid

Ratio = Annotated[float, Field(gt=0.0, lt=1.0, description="share of the tokens that is hidden from the encoder")]


class Tube(Spec):
    """One spatial pattern for all frames (VideoMAE, arXiv:2203.12602, section 3.3).

    Hides int(ratio * h * w) places, as the authors' generator does: 0.9 of 14x14 is 176 of 196.
    """

    kind: Literal["tube"] = "tube"
    ratio: Ratio = 0.9

    def __call__(self, grid: Grid, rng: np.random.Generator) -> Bool[np.ndarray, "t h w"]:
        """True = hidden. ValueError where this ratio hides nothing, or everything, on this grid."""
        place = _pick(grid.h * grid.w, rng, rule=self).reshape(1, grid.h, grid.w)
        return np.repeat(place, grid.t, axis=0)


class Random(Spec):
    """int(ratio * N) tokens anywhere in space and time (MAE-ST, arXiv:2205.09113, section 3.2)."""

    kind: Literal["random"] = "random"
    ratio: Ratio = 0.9

    def __call__(self, grid: Grid, rng: np.random.Generator) -> Bool[np.ndarray, "t h w"]:
        """True = hidden. ValueError where this ratio hides nothing, or everything, on this grid."""
        return _pick(grid.tokens, rng, rule=self).reshape(grid)


class Frame(Spec):
    """Whole time steps, int(ratio * t) of them (VideoMAE, arXiv:2203.12602, table 1b).

    The default hides 7 of 8 time steps. Each step is `tubelet` frames long.
    """

    kind: Literal["frame"] = "frame"
    ratio: Ratio = 0.875

    def __call__(self, grid: Grid, rng: np.random.Generator) -> Bool[np.ndarray, "t h w"]:
        """True = hidden. ValueError where this ratio hides nothing, or everything, on this grid."""
        steps = _pick(grid.t, rng, rule=self).reshape(grid.t, 1, 1)
        return np.broadcast_to(steps, grid).copy()


class All(Spec):
    """The decoder predicts every hidden token (VideoMAE)."""

    kind: Literal["all"] = "all"

    def __call__(
        self, grid: Grid, hidden: Bool[np.ndarray, "t h w"], rng: np.random.Generator
    ) -> Bool[np.ndarray, "t h w"]:
        """True = predicted. `grid` and `rng` are what rules that draw need; this one does not."""
        del grid, rng
        return hidden.copy()


MaskRule = Annotated[Tube | Random | Frame, Field(discriminator="kind"), ByKind]
"""What the encoder does not see."""

DecodeRule = Annotated[All, ByKind]
"""What the decoder predicts. A union tagged by `kind` as soon as there is a second rule."""


def _pick(places: int, rng: np.random.Generator, *, rule: Tube | Random | Frame) -> Bool[np.ndarray, " places"]:
    """int(ratio * places) of them True, at random."""
    count = int(rule.ratio * places)
    if not 0 < count < places:
        what = "nothing" if count == 0 else "everything"
        raise ValueError(f"mask {rule.kind}: ratio {rule.ratio} of {places} places hides {what}; choose another ratio")
    hidden = np.zeros(places, dtype=np.bool_)
    hidden[rng.permutation(places)[:count]] = True
    return hidden
