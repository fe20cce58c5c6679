"""What mask rules and decode rules are made of: their base classes, and a share of places drawn at random."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Num
from pydantic import Field
from torch import Tensor

from tubelet.spec import Spec
from tubelet.types import Cube, Grid, Split

Ratio = Annotated[float, Field(gt=0.0, lt=1.0, description="share of the tokens that is hidden from the encoder")]
Spared = Annotated[float, Field(gt=0.0, lt=1.0, description="share of the tokens that is not predicted")]

LossOn = Literal["hidden", "decoded"]
"""Which predicted tokens enter the loss: those that the encoder did not see, or all."""


class MaskSpec(Spec):
    """A mask rule: which tokens are hidden from the encoder. A subclass has `kind` and `__call__`.

    `uneven` says that it hides a different number of tokens in each clip, which a masked autoencoder cannot take.
    """

    uneven: ClassVar[bool] = False
    kind: str

    def __call__(self, grid: Grid, rng: np.random.Generator) -> Bool[np.ndarray, "t h w"]:
        """True = hidden; all draws come from `rng`. ValueError where the rule does not fit the grid."""
        raise NotImplementedError


class DecodeSpec(Spec):
    """A decode rule: which tokens of a clip the decoder predicts. A subclass has `kind`, `count` and `__call__`.

    The tokens follow from the grid, what is hidden and the draws of the clip. Where they follow from what is in the
    clip, too, see `tubelet.masks.by_score.ScoredDecode`.
    """

    kind: str

    def __call__(
        self, grid: Grid, hidden: Bool[np.ndarray, "t h w"], rng: np.random.Generator
    ) -> Bool[np.ndarray, "t h w"]:
        """True = predicted; `count` tokens are. ValueError where the rule does not fit the grid."""
        raise NotImplementedError

    def count(self, grid: Grid, hidden_count: int) -> int:
        """How many tokens are predicted of a clip with so many hidden ones: known before the clip is read."""
        raise NotImplementedError

    def check(self, loss_on: LossOn) -> None:
        """ValueError where the number of scored tokens would not be known on the host."""

    def choose_wanted(self, split: Split, video: Num[Tensor, "B C T H W"], cube: Cube) -> Split:
        """The split with the wanted tokens of these clips, on their device: here it has them already."""
        del video, cube
        return split


def pick(
    places: int,
    rng: np.random.Generator,
    *,
    ratio: float,
    name: str,
    count: int | None = None,
    verb: Literal["hides", "leaves out"] = "hides",
) -> Bool[np.ndarray, " places"]:
    """int(ratio * places) of them True, or `count`, at random. ValueError, of the rule `name`, for none and for all."""
    count = int(ratio * places) if count is None else count
    if not 0 < count < places:
        what = "nothing" if count == 0 else "everything"
        raise ValueError(f"{name}: ratio {ratio} of {places} places {verb} {what}; choose another ratio")
    chosen = np.zeros(places, dtype=np.bool_)
    chosen[rng.permutation(places)[:count]] = True
    return chosen
