"""Pixels as targets: what a cube looks like, normalised by itself or plain.

Layout of a row: (frame, row, column, colour), colour fastest.
"""

from __future__ import annotations

import math
from typing import ClassVar, Final, Literal, NamedTuple

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from tubelet.nn.pixels import grid_of, take_cubes
from tubelet.targets.base import OwnTarget, Picture
from tubelet.types import ClipShape, Cube

EPS: Final = 255e-6  # 1e-6 for pixels in 0..1


class Statistics(NamedTuple):
    """Mean and unbiased standard deviation (std) of each cube and colour, of pixels in 0..255."""

    mean: Float[Tensor, "B K C 1"]
    std: Float[Tensor, "B K C 1"]


class PixelTarget(OwnTarget):
    """A target that is drawn as pixels; `statistics` and `coloured` are for pictures alone."""

    picture: ClassVar[Picture | None] = "pixels"

    def width(self, cube: Cube) -> int:
        """Numbers per token: each pixel of the part of a cube that is predicted."""
        return 3 * math.prod(self.drawn(cube))

    def drawn(self, cube: Cube) -> Cube:
        """The part of a cube that is predicted, from its first frame on: all of it."""
        return cube

    def statistics(self, pixels: Float[Tensor, "B K C pixels"]) -> Statistics:
        """What a row says nothing of, where it `lacks_colours`: mean and std of each cube."""
        return statistics(pixels)

    def coloured(self, rows: Float[Tensor, "B K P"], given: Statistics | None) -> Float[Tensor, "B K 3 pixels"]:
        """Rows back to pixels in 0..255: the inverse of `rows`. `given` is None for those that lack no colours."""
        raise NotImplementedError


class NormalisedPixels(PixelTarget):
    """Pixels of a cube minus their mean, over their std, per colour (arXiv:2203.12602, section 3.1).

    Unbiased variance, 1e-6 added to the std, not to the variance, of pixels in 0..1 (V1
    `engine_for_pretraining.py`).
    """

    lacks_colours: ClassVar[bool] = True
    kind: Literal["normalised_pixels"] = "normalised_pixels"

    def rows(self, video: Num[Tensor, "B C T H W"], wanted: Int[Tensor, "B K"], cube: Cube) -> Float[Tensor, "B K P"]:
        """Targets of the wanted tokens, float32 under autocast too. `video` is uint8 or float in 0..255."""
        with torch.no_grad():
            pixels = colours(video, wanted, cube)
            mean, std = statistics(pixels)
            return as_rows(pixels.sub_(mean).div_(std + EPS))

    def coloured(self, rows: Float[Tensor, "B K P"], given: Statistics | None) -> Float[Tensor, "B K 3 pixels"]:
        """Pixels with this mean and std."""
        assert given is not None
        return coloured(rows, given)


class Pixels(PixelTarget):
    """Pixels as they are, in 0..1 (VideoMAE with `normlize_target` off)."""

    kind: Literal["pixels"] = "pixels"

    def rows(self, video: Num[Tensor, "B C T H W"], wanted: Int[Tensor, "B K"], cube: Cube) -> Float[Tensor, "B K P"]:
        """Targets of the wanted tokens, float32 under autocast too. `video` is uint8 or float in 0..255."""
        with torch.no_grad():
            return as_rows(colours(video, wanted, cube).div_(255.0))

    def coloured(self, rows: Float[Tensor, "B K P"], given: Statistics | None) -> Float[Tensor, "B K 3 pixels"]:
        """Pixels, as they are predicted."""
        del given
        return from_rows(rows, channels=3) * 255.0


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
    return from_rows(rows, channels=given.mean.shape[2]) * (given.std + EPS) + given.mean


def from_rows(rows: Float[Tensor, "B K P"], *, channels: int) -> Float[Tensor, "B K C pixels"]:
    """The inverse of `as_rows`."""
    pixels: Tensor = rows.float().unflatten(2, (-1, channels))
    return pixels.transpose(2, 3)


def to_cubes(pixels: Float[Tensor, "B K C pixels"], cube: Cube) -> Float[Tensor, "B K C f p q"]:
    """For pictures: `tubelet.nn.pixels.join_cubes` takes these."""
    cubes: Tensor = pixels.unflatten(3, tuple(cube))
    return cubes


FRAME_EPS: Final = 1e-6 * (255 * 0.225) ** 2
"""Added to the variance of pixels in 0..255: 1e-6 where pixels are over their std of 0.225."""


class FramePixels(PixelTarget):
    """Pixels of the first frame of a cube minus their mean, over their std (SlowFast `MaskMViT`, PRED_HOG off).

    Mean and unbiased variance are of all colours together, so a cube keeps its hue; 1e-6 is added to the variance.
    Layout of a row: (row, column, colour), colour fastest.
    """

    lacks_colours: ClassVar[bool] = True
    kind: Literal["frame_pixels"] = "frame_pixels"

    def drawn(self, cube: Cube) -> Cube:
        """The first frame."""
        return cube._replace(frames=1)

    def rows(self, video: Num[Tensor, "B C T H W"], wanted: Int[Tensor, "B K"], cube: Cube) -> Float[Tensor, "B K P"]:
        """Targets of the wanted tokens, float32 under autocast too. `video` is uint8 or float in 0..255."""
        with torch.no_grad():
            grid_of(video, cube)  # a last cube that is cut short is refused here, not lost
            pixels = take_cubes(video[:, :, :: cube.frames], wanted, cube._replace(frames=1)).float()
            rows = pixels.flatten(3).transpose(2, 3).flatten(2)
            variance, mean = torch.var_mean(rows, dim=2, keepdim=True)
            return (rows - mean) / (variance + FRAME_EPS).sqrt()

    def statistics(self, pixels: Float[Tensor, "B K C pixels"]) -> Statistics:
        """Of all colours together."""
        return common_statistics(pixels)

    def coloured(self, rows: Float[Tensor, "B K P"], given: Statistics | None) -> Float[Tensor, "B K 3 pixels"]:
        """Pixels with this mean and std."""
        assert given is not None
        return recoloured(rows, given)

    def peak_bytes(self, clip: ClipShape, cube: Cube, *, rows: int, clips: int, on_cpu: bool) -> int:
        """As of any target; with the pixels, the same by row, less their mean, and the result."""
        del clip, clips, on_cpu
        return 16 * rows * self.width(cube)


def common_statistics(pixels: Float[Tensor, "B K C pixels"]) -> Statistics:
    """Per cube, of all colours together."""
    return statistics(pixels.flatten(2).unsqueeze(2))


def recoloured(rows: Float[Tensor, "B K P"], given: Statistics) -> Float[Tensor, "B K 3 pixels"]:
    """Rows back to pixels in 0..255 with these statistics: the inverse of `FramePixels.rows`."""
    return from_rows(rows, channels=3) * (given.std.square() + FRAME_EPS).sqrt() + given.mean
