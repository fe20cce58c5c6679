"""Decode rules that look at the clip: tokens have scores, on the device, and those with the highest are predicted.

How many are predicted is known on the host before the clip is read, so shapes stay static and the device is never
asked; which ones, only the device knows. So that the number of tokens that enter the loss is known on the host, too,
each predicted token must be scored: the rule chooses among hidden tokens, or `loss_on=decoded`.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
import torch
from einops import reduce
from jaxtyping import Bool, Float, Int, Num
from pydantic import Field
from torch import Tensor

from tubelet.masks.base import DecodeSpec, LossOn, Spared
from tubelet.rng import draw_rows
from tubelet.types import Cube, Grid, Split

Among = Literal["hidden", "all"]


class ScoredDecode(DecodeSpec):
    """Predicts the tokens with the highest scores; a subclass has `kind` and `scores`.

    Of n tokens that there are to choose among (those that are hidden, or all), int(ratio * n) are not predicted. Of the
    others the share `random` is drawn, for each step anew and whatever the scores are, the rest are those with the
    highest scores; of equal ones the first in raster order.
    """

    ratio: Spared = 0.5
    random: float = Field(default=0.0, ge=0.0, lt=1.0, description="share of the predicted tokens drawn without scores")
    among: Among = Field(default="hidden", description="tokens to choose from: those that are hidden, or all")

    def scores(self, video: Num[Tensor, "B C T H W"], cube: Cube) -> Float[Tensor, "B t h w"]:
        """How much each token is worth; no gradient. `video` is uint8 or float in 0..255."""
        raise NotImplementedError

    def __call__(
        self, grid: Grid, hidden: Bool[np.ndarray, "t h w"], rng: np.random.Generator
    ) -> Bool[np.ndarray, "t h w"]:
        """`count` tokens in raster order, which hold the places of those that the device will choose; no draw."""
        del rng
        able = hidden.ravel() if self.among == "hidden" else np.ones(grid.tokens, dtype=np.bool_)
        return (able & (np.cumsum(able) <= self.count(grid, int(hidden.sum())))).reshape(grid)

    def count(self, grid: Grid, hidden_count: int) -> int:
        """All there are to choose from but int(ratio * all): at least one, where there is one."""
        able = hidden_count if self.among == "hidden" else grid.tokens
        return able - int(self.ratio * able)

    def check(self, loss_on: LossOn) -> None:
        """ValueError where seen tokens may be chosen and do not enter the loss: nobody could count those that do."""
        if self.among == "all" and loss_on == "hidden":
            raise ValueError(
                f"decode {self.kind}: among=all chooses tokens that the encoder sees, too, and how many is not known "
                "before: set loss_on=decoded, or decode.among=hidden"
            )

    def choose(
        self, scores: Float[Tensor, "B t h w"], hidden: Bool[Tensor, "B t h w"], count: Int[Tensor, " B"]
    ) -> Bool[Tensor, "B t h w"]:
        """True = predicted, `count` tokens of each clip. Draws come from torch's default generator (`tubelet.rng`)."""
        able = hidden.flatten(1) if self.among == "hidden" else torch.ones_like(hidden).flatten(1)
        drawn = (self.random * count).long()
        chosen = highest(scores.flatten(1), able, count - drawn)
        if self.random:
            luck = draw_rows(len(scores), lambda rows: torch.rand(rows, able.shape[1], device=scores.device))
            chosen = chosen | highest(luck, able & ~chosen, drawn)
        return chosen.view_as(hidden)

    def choose_wanted(self, split: Split, video: Num[Tensor, "B C T H W"], cube: Cube) -> Split:
        """The split with the tokens that this clip's scores choose; how many there are, and their weights, stay."""
        with torch.no_grad():
            return wanted_by(self.scores(video, cube), split, self)


def wanted_by(scores: Float[Tensor, "B t h w"], split: Split, rule: ScoredDecode) -> Split:
    """The split with what the rule chooses by these scores, in raster order, padded as it was."""
    assert split.hidden is not None
    count = split.weight.sum(1).long()  # each predicted token has weight 1, padding has 0
    decoded = rule.choose(scores, split.hidden, count).flatten(1)
    wanted = torch.argsort((~decoded).int(), dim=1, stable=True)[:, : split.wanted.shape[1]]
    return dataclasses.replace(split, wanted=wanted)


def highest(scores: Float[Tensor, "B N"], able: Bool[Tensor, "B N"], count: Int[Tensor, " B"]) -> Bool[Tensor, "B N"]:
    """The `count` tokens of each clip with the highest scores among those that are able; of equal ones the first."""
    order = scores.masked_fill(~able, -torch.inf).argsort(dim=1, descending=True, stable=True)
    ranks = torch.arange(scores.shape[1], device=scores.device).expand_as(order)
    place = torch.empty_like(order).scatter_(1, order, ranks)
    return (place < count.unsqueeze(1)) & able


class Motion(ScoredDecode):
    """Tokens in which most changes from frame to frame are predicted: what moves is harder to fill in than what rests.

    A simple stand-in for the learnt importance of LVMAE (arXiv:2411.13683). The score of a token is the mean square of
    the differences of its pixels to those of the frame before, and of the first frame to the second.
    """

    kind: Literal["motion"] = "motion"

    def scores(self, video: Num[Tensor, "B C T H W"], cube: Cube) -> Float[Tensor, "B t h w"]:
        """Exact up to the last rounding for bytes, so alike on every device. ValueError for images."""
        if video.shape[2] == 1:
            raise ValueError(f"decode {self.kind}: an image has no motion; choose another decode rule")
        frames = video if video.is_floating_point() else video.int()
        change = frames.diff(dim=2).square_()
        change = torch.cat([change[:, :, :1], change], dim=2)
        f, p, q = cube
        total = reduce(change, "B C (t f) (h p) (w q) -> B t h w", "sum", f=f, p=p, q=q)
        return total.float() / (video.shape[1] * f * p * q)
