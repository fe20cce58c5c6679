"""From frames as read to a clip as the model sees it: crop, flip, colour, RandAugment, erasing.

Everything is drawn once per clip and applied to all of its frames, on bytes, from the generator that is passed in.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import UInt8
from pydantic import Field
from torch import Tensor

from tubelet.spec import Spec
from tubelet.video.augment.colour import IMAGENET_MEAN_BYTES, IMAGENET_STD_BYTES, ColourJitter
from tubelet.video.augment.crops import (
    CentreCrop,
    Crop,
    MultiScaleCrop,
    Placement,
    RandomResizedCrop,
    Share,
    as_tensor,
    test_crops,
)
from tubelet.video.augment.randaugment import RandAugment

__all__ = [
    "Augment",
    "CentreCrop",
    "ColourJitter",
    "Crop",
    "MultiScaleCrop",
    "Placement",
    "RandAugment",
    "RandomErasing",
    "RandomResizedCrop",
    "test_crops",
]


class RandomErasing(Spec):
    """Replaces one box by noise, the same box in all frames (Random Erasing, arXiv:1708.04896).

    The noise is drawn per pixel and frame, normal with ImageNet's mean and deviation, as bytes. The authors
    draw it after normalisation, so theirs goes beyond black and white; here it is cut off there.
    """

    probability: float = Field(default=0.25, ge=0, le=1)
    area: tuple[Share, Share] = Field(default=(0.02, 1 / 3), description="share of the frame")
    ratio: tuple[float, float] = Field(default=(0.3, 1 / 0.3), description="height to width, log-uniform")

    def __call__(self, frames: UInt8[Tensor, "T C H W"], rng: np.random.Generator) -> UInt8[Tensor, "T C H W"]:
        if rng.random() >= self.probability:
            return frames
        box = self._box(frames.shape[-2], frames.shape[-1], rng)
        if box is None:
            return frames
        top, left, height, width = box
        noise = rng.standard_normal((frames.shape[0], height, width, 3), dtype=np.float32)
        noise = noise * np.array(IMAGENET_STD_BYTES, np.float32) + np.array(IMAGENET_MEAN_BYTES, np.float32)
        erased = frames.clone()
        erased[..., top : top + height, left : left + width] = as_tensor(noise.round().clip(0, 255).astype(np.uint8))
        return erased

    def _box(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int] | None:
        for _ in range(10):
            area = height * width * rng.uniform(*self.area)
            ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            box_height, box_width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < box_height < height and 0 < box_width < width:
                top = int(rng.integers(0, height - box_height + 1))
                return top, int(rng.integers(0, width - box_width + 1)), box_height, box_width
        return None


class Augment(Spec):
    """What is done to a training clip, in this order: crop to size, flip, colour, RandAugment, erase.

    The authors run RandAugment on whole frames and crop afterwards; here the crop comes first, which costs a fraction
    and shows a little more of the fill colour after a rotation or shift.
    """

    crop: Crop = MultiScaleCrop()
    flip: float = Field(default=0.0, ge=0, le=1, description="probability; 0 where direction is the class")
    colour: ColourJitter | None = None
    randaugment: RandAugment | None = None
    erase: RandomErasing | None = None

    def __call__(
        self, frames: UInt8[np.ndarray, "T H W C"], size: int, rng: np.random.Generator
    ) -> UInt8[Tensor, "C T size size"]:
        """Bytes in, bytes out; the result is contiguous."""
        return self.placed(frames, size, rng)[0]

    def placed(
        self, frames: UInt8[np.ndarray, "T H W C"], size: int, rng: np.random.Generator
    ) -> tuple[UInt8[Tensor, "C T size size"], Placement]:
        """The clip, and where in the frames it was cut: what labels that are places follow."""
        clip, placement = self.crop.placed(as_tensor(frames), size, rng)
        if rng.random() < self.flip:
            clip, placement = clip.flip(-1), placement._replace(flipped=True)
        for change in (self.colour, self.randaugment, self.erase):
            if change is not None:
                clip = change(clip, rng)
        return clip.transpose(0, 1).contiguous(memory_format=torch.contiguous_format), placement
