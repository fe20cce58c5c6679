"""The mask of a clip, drawn by the rules of a recipe: for training, and for whatever shows or counts what it does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool

from tubelet.masks.decode import All, LossOn, scored
from tubelet.types import Grid, Mask


@runtime_checkable
class HiddenRule(Protocol):
    """A mask rule: which tokens of the grid are hidden."""

    def __call__(self, grid: Grid, rng: np.random.Generator) -> Bool[np.ndarray, "t h w"]: ...


@runtime_checkable
class DecodedRule(Protocol):
    """A decode rule: which tokens the decoder predicts."""

    def __call__(
        self, grid: Grid, hidden: Bool[np.ndarray, "t h w"], rng: np.random.Generator
    ) -> Bool[np.ndarray, "t h w"]: ...


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
    """The mask of one clip, a batch of one. ValueError where a rule does not fit the grid."""
    hidden = recipe.mask(grid, rng)
    decoded = recipe.decode(grid, hidden, rng)
    drawn = np.stack([hidden, decoded, scored(hidden, decoded, recipe.loss_on)])
    return Mask.unstacked(torch.from_numpy(drawn)[None])
