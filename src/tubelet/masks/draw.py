"""The mask of a clip, drawn by the rules of a recipe: for training, and for whatever shows or counts what it does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Num
from torch import Tensor

from tubelet.masks.base import LossOn
from tubelet.masks.decode import All, scored
from tubelet.types import Cube, Grid, Mask, Split


@runtime_checkable
class HiddenRule(Protocol):
    """A mask rule: which tokens of the grid are hidden."""

    def __call__(self, grid: Grid, rng: np.random.Generator) -> Bool[np.ndarray, "t h w"]: ...


@runtime_checkable
class DecodedRule(Protocol):
    """A decode rule: which tokens the decoder predicts; `tubelet.masks.base.DecodeSpec` says what each part does."""

    def __call__(
        self, grid: Grid, hidden: Bool[np.ndarray, "t h w"], rng: np.random.Generator
    ) -> Bool[np.ndarray, "t h w"]: ...

    def count(self, grid: Grid, hidden_count: int) -> int: ...

    def check(self, loss_on: LossOn) -> None: ...

    def choose_wanted(self, split: Split, video: Num[Tensor, "B C T H W"], cube: Cube) -> Split: ...


@runtime_checkable
class HasMaskRules(Protocol):
    """What a recipe says of its masks: a pre-training recipe, or `MaskRules` alone."""

    @property
    def mask(self) -> HiddenRule: ...

    @property
    def decode(self) -> DecodedRule: ...

    @property
    def loss_on(self) -> LossOn: ...


@dataclass(frozen=True)
class MaskRules:
    """Rules without the rest of a recipe."""

    mask: HiddenRule
    decode: DecodedRule = field(default_factory=All)
    loss_on: LossOn = "hidden"


def draw_mask(recipe: HasMaskRules, grid: Grid, rng: np.random.Generator) -> Mask:
    """The mask of one clip, a batch of one. ValueError where a rule does not fit the grid, or decode and `loss_on`.

    Where the decode rule looks at the clip, `decoded` has as many tokens as will be predicted, and `choose_decoded`
    puts them where they belong.
    """
    recipe.decode.check(recipe.loss_on)
    hidden = recipe.mask(grid, rng)
    decoded = recipe.decode(grid, hidden, rng)
    drawn = np.stack([hidden, decoded, scored(hidden, decoded, recipe.loss_on)])
    return Mask.unstacked(torch.from_numpy(drawn)[None])


def choose_decoded(rule: DecodedRule, mask: Mask, video: Num[Tensor, "B C T H W"], cube: Cube) -> Mask:
    """The mask with the tokens that the rule predicts of these very clips; the mask itself where it has them already.

    Training does the same to its splits (`DecodeSpec.choose_wanted`).
    """
    before = mask.split()
    after = rule.choose_wanted(before, video, cube)
    if after is before:
        return mask
    real = after.weight > 0  # not padding
    decoded = torch.zeros_like(mask.decoded).flatten(1)
    clip = torch.arange(len(decoded), device=decoded.device).unsqueeze(1).expand_as(after.wanted)
    decoded[clip[real], after.wanted[real]] = True
    shaped = decoded.view_as(mask.decoded)
    return Mask(mask.hidden, shaped, shaped)
