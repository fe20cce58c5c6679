"""Mixup, CutMix and label smoothing over a batch of clips."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float, Int, Num
from pydantic import Field
from torch import Tensor
from torch.distributions import Beta
from torch.nn import functional as F

from tubelet.spec import Spec


class Mixing(Spec):
    """Mixes each clip with its mirror in the batch order: mixup (arXiv:1710.09412) or CutMix (arXiv:1905.04899).

    One draw per batch, as timm's `Mixup` in batch mode: with `probability` the batch is mixed; where both are on,
    `switch` is the chance of CutMix. `mixup` and `cutmix` are the alphas of their Beta laws, 0 turns one off.
    Draws come from torch's default CPU generator, so the host knows them and a GPU is never waited for.
    """

    kind: Literal["mixing"] = "mixing"
    mixup: float = Field(default=0.8, ge=0.0)
    cutmix: float = Field(default=1.0, ge=0.0)
    probability: float = Field(default=1.0, ge=0.0, le=1.0)
    switch: float = Field(default=0.5, ge=0.0, le=1.0)
    smoothing: float = Field(default=0.1, ge=0.0, lt=1.0)

    def __call__(
        self, video: Num[Tensor, "B C T H W"], labels: Int[Tensor, " B"], *, classes: int
    ) -> tuple[Num[Tensor, "B C T H W"], Float[Tensor, "B classes"]]:
        """The mixed clips (bytes stay bytes unless mixup blends them) and their soft labels, which sum to 1."""
        share, cut = self._draw()
        if cut:
            video, share = _cutmix(video, share)
        elif share < 1.0:
            values = video.float()
            video = torch.lerp(values.flip(0), values, share)
        soft = soft_labels(labels, classes, smoothing=self.smoothing)
        return video, torch.lerp(soft.flip(0), soft, share)

    def _draw(self) -> tuple[float, bool]:
        """Share of the own clip, and whether the rest comes as a box."""
        if self.mixup + self.cutmix == 0.0 or float(torch.rand(())) >= self.probability:
            return 1.0, False
        cut = self.cutmix > 0.0 and (self.mixup == 0.0 or float(torch.rand(())) < self.switch)
        alpha = self.cutmix if cut else self.mixup
        return float(Beta(torch.tensor(alpha), torch.tensor(alpha)).sample()), cut


NO_MIXING = Mixing(mixup=0.0, cutmix=0.0, smoothing=0.0)


def soft_labels(labels: Int[Tensor, " B"], classes: int, *, smoothing: float) -> Float[Tensor, "B classes"]:
    """1 - smoothing at the class, plus smoothing spread evenly over all classes (arXiv:1512.00567, section 7)."""
    return F.one_hot(labels, classes).float() * (1.0 - smoothing) + smoothing / classes


def _cutmix(video: Num[Tensor, "B C T H W"], share: float) -> tuple[Num[Tensor, "B C T H W"], float]:
    """A box of about 1 - share of the picture comes from the mirrored clip, at the same place in every frame.

    The box is cut at the border, so the share is counted again.
    """
    height, width = video.shape[-2:]
    top, bottom = _side(height, share)
    left, right = _side(width, share)
    mixed = video.clone()
    mixed[..., top:bottom, left:right] = video.flip(0)[..., top:bottom, left:right]
    return mixed, 1.0 - (bottom - top) * (right - left) / (height * width)


def _side(pixels: int, share: float) -> tuple[int, int]:
    half = int(pixels * math.sqrt(1.0 - share)) // 2
    centre = int(torch.randint(pixels, ()))
    return max(centre - half, 0), min(centre + half, pixels)
