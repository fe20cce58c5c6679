"""RandAugment on clips: a few random operations of one strength, alike for all frames."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from jaxtyping import UInt8
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from tubelet.spec import Spec
from tubelet.video.augment import colour

Clip = UInt8[Tensor, "T C H W"]
Operation = Callable[[Clip, float, float], Clip]
"""(frames, strength 0..1, sign +1 or -1) -> frames. Operations without a direction ignore the sign."""

FILL: Final = colour.IMAGENET_MEAN_BYTES
"""What shows where a frame was moved away: ImageNet's mean colour."""


class RandAugment(Spec):
    """`operations` draws with repetition, each done with `probability` (RandAugment, arXiv:1909.13719).

    The defaults are what `rand-m7-n4-mstd0.5-inc1` means in the authors' scripts (their paper says magnitude 9):
    magnitude 7 of 10 with a normal deviation of 0.5 per operation, the set whose strength always grows with magnitude,
    and, unlike the RandAugment paper, a coin flip for each operation.
    """

    operations: int = Field(default=4, ge=1, description="operations drawn for a clip")
    magnitude: float = Field(default=7.0, ge=0, le=10)
    deviation: float = Field(default=0.5, ge=0, description="standard deviation of the magnitude")
    probability: float = Field(default=0.5, ge=0, le=1, description="of doing an operation that was drawn")

    def __call__(self, frames: Clip, rng: np.random.Generator) -> Clip:
        names = list(OPERATIONS)
        for number in rng.integers(len(names), size=self.operations).tolist():
            chance, deviation, sign = float(rng.random()), float(rng.standard_normal()), float(rng.integers(2)) * 2 - 1
            magnitude = min(max(self.magnitude + self.deviation * deviation, 0.0), 10.0)
            if chance < self.probability:
                frames = OPERATIONS[names[number]](frames, magnitude / 10, sign)
        return frames


def rotate(frames: Clip, degrees: float) -> Clip:
    """About the centre; positive is counter-clockwise."""
    angle = math.radians(degrees)
    return _affine(frames, ((math.cos(angle), -math.sin(angle)), (math.sin(angle), math.cos(angle))))


def shear(frames: Clip, *, x: float = 0.0, y: float = 0.0) -> Clip:
    """Slants by a share: x moves rows sideways, y moves columns up or down; the centre stays."""
    return _affine(frames, ((1.0, x), (y, 1.0)))


def translate(frames: Clip, *, x: float = 0.0, y: float = 0.0) -> Clip:
    """Moves right by a share x of the width and down by a share y of the height, in whole pixels."""
    height, width = frames.shape[-2:]
    right, down = round(x * width), round(y * height)
    out = torch.empty_like(frames)
    out[:] = torch.tensor(FILL).round().to(torch.uint8).view(1, 3, 1, 1)
    if abs(right) < width and abs(down) < height:
        to_rows, to_columns = slice(max(down, 0), height + min(down, 0)), slice(max(right, 0), width + min(right, 0))
        rows, columns = slice(max(-down, 0), height - max(down, 0)), slice(max(-right, 0), width - max(right, 0))
        out[..., to_rows, to_columns] = frames[..., rows, columns]
    return out


def _affine(frames: Clip, matrix: tuple[tuple[float, float], tuple[float, float]]) -> Clip:
    """Each place (x, y), in pixels from the centre, shows what was at matrix @ (x, y); bilinear."""
    height, width = frames.shape[-2:]
    (xx, xy), (yx, yy) = matrix
    across, down = xy * height / width, yx * width / height  # grid_sample counts in halves of width and height
    theta = torch.tensor([[[xx, across, 0.0], [down, yy, 0.0]]])
    grid = functional.affine_grid(theta, [1, 1, height, width], align_corners=False)
    fill = torch.tensor(FILL).view(1, 3, 1, 1)
    centred = (frames.float() - fill).reshape(1, -1, height, width)
    moved = functional.grid_sample(centred, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return colour.to_bytes(moved.reshape(frames.shape) + fill)


def _plain(change: Callable[[Clip], Clip]) -> Operation:
    return lambda frames, _strength, _sign: change(frames)


def _growing(change: Callable[[Clip, int], Clip], amount: Callable[[float], int]) -> Operation:
    return lambda frames, strength, _sign: change(frames, amount(strength))


def _either_way(change: Callable[[Clip, float], Clip], largest: float, *, neutral: float = 0.0) -> Operation:
    return lambda frames, strength, sign: change(frames, neutral + largest * strength * sign)


OPERATIONS: Final[dict[str, Operation]] = {
    "auto_contrast": _plain(colour.auto_contrast),
    "equalise": _plain(colour.equalise),
    "invert": _plain(colour.invert),
    "posterise": _growing(colour.posterise, lambda strength: 4 - int(4 * strength)),
    "solarise": _growing(colour.solarise, lambda strength: 256 - int(256 * strength)),
    "solarise_add": _growing(colour.solarise_add, lambda strength: int(110 * strength)),
    "saturation": _either_way(colour.saturation, 0.9, neutral=1.0),
    "contrast": _either_way(colour.contrast, 0.9, neutral=1.0),
    "brightness": _either_way(colour.brightness, 0.9, neutral=1.0),
    "sharpness": _either_way(colour.sharpness, 0.9, neutral=1.0),
    "rotate": _either_way(rotate, 30.0),
    "shear_x": _either_way(lambda frames, x: shear(frames, x=x), 0.3),
    "shear_y": _either_way(lambda frames, y: shear(frames, y=y), 0.3),
    "translate_x": _either_way(lambda frames, x: translate(frames, x=x), 0.45),
    "translate_y": _either_way(lambda frames, y: translate(frames, y=y), 0.45),
}
"""The set whose strength grows with magnitude; its ranges (30 degrees, 0.3, 0.45, 0.9, 110) are those in common use."""
