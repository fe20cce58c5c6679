"""Pixels as targets: what a cube looks like, normalised by itself or plain.

Layout of a row: (frame, row, column, colour), colour fastest.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from tubelet.nn.pixels import take_cubes
from tubelet.targets.own import OwnTarget
from tubelet.types import Cube

EPS: Final = 255e-6  # 1e-6 for pixels in 0..1


class Statistics(NamedTuple):
    """Mean and unbiased deviation of each cube and colour, of pixels in 0..255."""

    mean: Float[Tensor, "B K C 1"]
    deviation: Float[Tensor, "B K C 1"]


class NormalisedPixels(OwnTarget):
    """Pixels of a cube minus their mean, over their deviation, per colour (arXiv:2203.12602, section 3.1).

    Unbiased variance, 1e-6 added to the deviation, not to the variance, of pixels in 0..1 (V1
    `engine_for_pretraining.py`).
    """

    kind: Literal["normalised_pixels"] = "normalised_pixels"

    def width(self, cube: Cube) -> int:
        """Numbers per token."""
        return 3 * cube.frames * cube.height * cube.width

    def rows(self, video: Num[Tensor, "B C T H W"], wanted: Int[Tensor, "B K"], cube: Cube) -> Float[Tensor, "B K P"]:
        """Targets of the wanted tokens, float32 under autocast too. `video` is uint8 or float in 0..255."""
        with torch.no_grad():
            pixels = colours(video, wanted, cube)
            mean, deviation = statistics(pixels)
            return as_rows(pixels.sub_(mean).div_(deviation + EPS))


class Pixels(OwnTarget):
    """Pixels as they are, in 0..1 (VideoMAE with `normlize_target` off)."""

    kind: Literal["pixels"] = "pixels"

    def width(self, cube: Cube) -> int:
        """Numbers per token."""
        return 3 * cube.frames * cube.height * cube.width

    def rows(self, video: Num[Tensor, "B C T H W"], wanted: Int[Tensor, "B K"], cube: Cube) -> Float[Tensor, "B K P"]:
        """Targets of the wanted tokens, float32 under autocast too. `video` is uint8 or float in 0..255."""
        with torch.no_grad():
            return as_rows(colours(video, wanted, cube).div_(255.0))


def colours(video: Num[Tensor, "B C T H W"], wanted: Int[Tensor, "B K"], cube: Cube) -> Float[Tensor, "B K C pixels"]:
    """The wanted cubes in 0..255, float32, always a copy; pixels of one colour lie together, so sums are quick."""
    return take_cubes(video, wanted, cube).flatten(3).to(torch.float32, copy=True)


def statistics(pixels: Float[Tensor, "B K C pixels"]) -> Statistics:
    """Per cube and colour. Two sums: on a CPU `torch.std` takes several times as long."""
    mean = pixels.mean(3, keepdim=True)
    squares = (pixels - mean).square_().sum(3, keepdim=True)
    return Statistics(mean, (squares / max(pixels.shape[3] - 1, 1)).sqrt_())


def as_rows(pixels: Float[Tensor, "B K C pixels"]) -> Float[Tensor, "B K P"]:
    """Colour fastest."""
    return pixels.transpose(2, 3).flatten(2)


def coloured(rows: Float[Tensor, "B K P"], given: Statistics) -> Float[Tensor, "B K C pixels"]:
    """Normalised rows back to pixels in 0..255 with these statistics: the inverse of `NormalisedPixels.rows`."""
    return from_rows(rows, channels=given.mean.shape[2]) * (given.deviation + EPS) + given.mean


def from_rows(rows: Float[Tensor, "B K P"], *, channels: int) -> Float[Tensor, "B K C pixels"]:
    """The inverse of `as_rows`."""
    pixels: Tensor = rows.float().unflatten(2, (-1, channels))
    return pixels.transpose(2, 3)


def to_cubes(pixels: Float[Tensor, "B K C pixels"], cube: Cube) -> Float[Tensor, "B K C f p q"]:
    """For pictures: `tubelet.nn.pixels.join_cubes` takes these."""
    cubes: Tensor = pixels.unflatten(3, tuple(cube))
    return cubes
