"""Where to cut square clips out of frames, and scaling them to size. All frames of a clip are cut alike.

Frames travel as uint8 tensors [T,C,H,W] here, so that resizing and colour work on them without a copy.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from tubelet.spec import OneOf, Spec

Interpolation = Literal["bilinear", "bicubic"]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]


class Placement(NamedTuple):
    """Where a clip was cut out of its frames, in their pixels, and whether it was mirrored after that.

    `frame` is the (height, width) of the frames. Labels that are places, such as boxes, are moved by it.
    """

    top: float
    left: float
    height: float
    width: float
    frame: tuple[int, int]
    flipped: bool = False


class _Crop(Spec):
    def __call__(
        self, frames: UInt8[Tensor, "T C H W"], size: int, rng: np.random.Generator
    ) -> UInt8[Tensor, "T C size size"]:
        """The crop, scaled to a square of `size`."""
        return self.placed(frames, size, rng)[0]

    def placed(
        self, frames: UInt8[Tensor, "T C H W"], size: int, rng: np.random.Generator
    ) -> tuple[UInt8[Tensor, "T C size size"], Placement]:
        """The crop, and where it is."""
        raise NotImplementedError


class MultiScaleCrop(_Crop):
    """A crop of one of a few sizes at one of 13 fixed places (TSN, arXiv:1608.00859; VideoMAE pre-training).

    Sides are the short side of the frame times a scale; height and width may take scales up to `max_distort` steps
    apart; a side within 2 pixels of the wanted size becomes that size.
    """

    kind: Literal["multi_scale_crop"] = "multi_scale_crop"
    scales: tuple[Share, ...] = Field(default=(1.0, 0.875, 0.75, 0.66), min_length=1)
    max_distort: int = Field(default=1, ge=0, description="how many steps apart the scales of height and width may be")
    interpolation: Interpolation = "bilinear"

    def sizes(self, height: int, width: int, size: int) -> list[tuple[int, int]]:
        """All (height, width) of crops, in the authors' order."""
        sides = [int(min(height, width) * scale) for scale in self.scales]
        sides = [size if abs(side - size) < 3 and size <= min(height, width) else side for side in sides]
        places = range(len(sides))
        pairs = [(sides[i], sides[j]) for i in places for j in places if abs(i - j) <= self.max_distort]
        return [(max(h, 1), max(w, 1)) for h, w in pairs]

    def offsets(self, spare_height: int, spare_width: int) -> list[tuple[int, int]]:
        """The 13 (top, left) places: corners, centre, middles of the edges, and the quarter points."""
        y, x = spare_height // 4, spare_width // 4
        corners = [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)]
        edges = [(2, 0), (2, 4), (4, 2), (0, 2)]
        quarters = [(1, 1), (1, 3), (3, 1), (3, 3)]
        return [(y * down, x * right) for down, right in corners + edges + quarters]

    def placed(
        self, frames: UInt8[Tensor, "T C H W"], size: int, rng: np.random.Generator
    ) -> tuple[UInt8[Tensor, "T C size size"], Placement]:
        height, width = frames.shape[-2:]
        sizes = self.sizes(height, width, size)
        crop_height, crop_width = sizes[int(rng.integers(len(sizes)))]
        places = self.offsets(height - crop_height, width - crop_width)
        top, left = places[int(rng.integers(len(places)))]
        return _cut(frames, (top, left, crop_height, crop_width), size, self.interpolation)


class RandomResizedCrop(_Crop):
    """A crop of random area and aspect ratio (Inception, arXiv:1409.4842, section 6), scaled to size.

    Ten draws of area (share of the frame) and ratio (width to height, log-uniform); if none fits, the largest crop in
    the centre whose ratio is allowed.
    """

    kind: Literal["random_resized_crop"] = "random_resized_crop"
    scale: tuple[Share, Share] = Field(default=(0.08, 1.0), description="share of the frame's area")
    ratio: tuple[Positive, Positive] = (0.75, 4 / 3)
    interpolation: Interpolation = "bicubic"

    def box(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """(top, left, height, width) in pixels."""
        for _ in range(10):
            area = height * width * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < crop_width <= width and 0 < crop_height <= height:
                top = int(rng.integers(0, height - crop_height + 1))
                left = int(rng.integers(0, width - crop_width + 1))
                return top, left, crop_height, crop_width
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        crop_height = min(height, max(round(width / ratio), 1))
        crop_width = min(width, max(round(height * ratio), 1))
        return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width

    def placed(
        self, frames: UInt8[Tensor, "T C H W"], size: int, rng: np.random.Generator
    ) -> tuple[UInt8[Tensor, "T C size size"], Placement]:
        height, width = frames.shape[-2:]
        return _cut(frames, self.box(height, width, rng), size, self.interpolation)


class CentreCrop(_Crop):
    """The square in the middle after scaling the short side to size: nothing is drawn."""

    kind: Literal["centre_crop"] = "centre_crop"
    interpolation: Interpolation = "bilinear"

    def placed(
        self, frames: UInt8[Tensor, "T C H W"], size: int, rng: np.random.Generator
    ) -> tuple[UInt8[Tensor, "T C size size"], Placement]:
        del rng  # other crops draw
        height, width = frames.shape[-2:]
        side = min(height, width)
        placement = Placement((height - side) / 2, (width - side) / 2, side, side, (height, width))
        return _square(resize_short_side(frames, size, self.interpolation), size, crops=1)[0], placement


Crop = Annotated[MultiScaleCrop | RandomResizedCrop | CentreCrop, OneOf()]
"""Any crop, read from data by its `kind`."""


def test_crops(frames: UInt8[np.ndarray, "T H W C"], size: int, crops: int) -> UInt8[Tensor, "crops C T size size"]:
    """Squares at even distances along the long side, after the short side was scaled to `size`; 1 is the centre.

    VideoMAE tests with 3 (start, middle, end); for one crop the authors' code divides by zero.
    """
    small = resize_short_side(as_tensor(frames), size, "bilinear")
    return torch.stack([square.transpose(0, 1) for square in _square(small, size, crops)])


def crop_starts(long_side: int, size: int, *, crops: int) -> list[int]:
    """First pixel of each of `crops` squares of `size` along a side; a single one is in the middle."""
    room = long_side - size
    return [room // 2] if crops == 1 else [int(k * (room / (crops - 1))) for k in range(crops)]


def resize(
    frames: UInt8[Tensor, "T C H W"], size: tuple[int, int], interpolation: Interpolation
) -> UInt8[Tensor, "T C h w"]:
    """Scale to (height, width), with a wider filter where this makes it smaller (as PIL does)."""
    if tuple(frames.shape[-2:]) == size:
        return frames
    return functional.interpolate(frames, size=size, mode=interpolation, antialias=True)


def resize_short_side(
    frames: UInt8[Tensor, "T C H W"], size: int, interpolation: Interpolation
) -> UInt8[Tensor, "T C h w"]:
    """Scale so that the short side has `size` pixels and the shape stays."""
    height, width = frames.shape[-2:]
    short = min(height, width)
    return resize(frames, (size * height // short, size * width // short), interpolation)


def as_tensor(frames: UInt8[np.ndarray, "T H W C"]) -> UInt8[Tensor, "T C H W"]:
    """The same bytes seen channels first (no copy where the array may be written to)."""
    return torch.from_numpy(np.require(frames, requirements="W")).permute(0, 3, 1, 2)


def _cut(
    frames: UInt8[Tensor, "T C H W"], box: tuple[int, int, int, int], size: int, interpolation: Interpolation
) -> tuple[UInt8[Tensor, "T C size size"], Placement]:
    """The box (top, left, height, width) of the frames, scaled to a square of `size`."""
    top, left, height, width = box
    square = resize(frames[..., top : top + height, left : left + width], (size, size), interpolation)
    return square, Placement(*box, frame=(frames.shape[-2], frames.shape[-1]))


def _square(frames: UInt8[Tensor, "T C H W"], size: int, crops: int) -> list[UInt8[Tensor, "T C size size"]]:
    height, width = frames.shape[-2:]
    if height > width:
        return [frames[..., start : start + size, :] for start in crop_starts(height, size, crops=crops)]
    return [frames[..., start : start + size] for start in crop_starts(width, size, crops=crops)]
