"""The encoder of DALL-E's discrete VAE (arXiv:2102.12092, appendix A): a picture becomes a grid of ids."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Final

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from tubelet.spec import Spec

MARGIN: Final = 0.1
"""Colours in 0..1 are pressed into 0.1 to 0.9, where a logit is not too large."""


class DvaeSpec(Spec):
    """Size of a `DvaeEncoder`; the default is the released one."""

    width: int = Field(default=256, ge=1, description="channels of the first group; each doubles them")
    groups: int = Field(default=4, ge=1, description="each but the last halves the picture")
    blocks: int = Field(default=2, ge=1, description="in each group")
    vocabulary: int = Field(default=8192, ge=2)

    @property
    def patch(self) -> int:
        """Pixels down and across that an id stands for."""
        return int(2 ** (self.groups - 1))


class DvaeEncoder(nn.Module):
    """Residual convolutions, a maximum over 2 x 2 between groups (DALL-E `encoder.py`).

    It computes in float32 throughout: the authors' code takes float16 on a GPU, where an id of a close call may differ.
    Names: `stem`, `groups.{1..}.{1..}.convs.{1..4}`, `.skip`, `head`.
    """

    def __init__(self, spec: DvaeSpec) -> None:
        super().__init__()
        self.spec = spec
        self.stem = nn.Conv2d(3, spec.width, 7, padding=3)
        gain = 1.0 / (spec.groups * spec.blocks) ** 2
        widths = [spec.width, *(spec.width * 2**group for group in range(spec.groups))]
        self.groups = _numbered(
            _numbered(
                _ResidualBlock(widths[group - (block == 0)], widths[group], gain=gain) for block in range(spec.blocks)
            )
            for group in range(1, spec.groups + 1)
        )
        self.head = nn.Conv2d(widths[-1], spec.vocabulary, 1)

    def forward(self, pictures: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B {self.spec.vocabulary} h w"]:
        """Logits of the ids. `pictures` is float in 0..1; ValueError where `spec.patch` does not divide its sides."""
        if any(side % self.spec.patch for side in pictures.shape[2:]):
            raise ValueError(f"pictures of {tuple(pictures.shape[2:])} pixels are no multiple of {self.spec.patch}")
        kind = pictures.device.type
        with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
            x = self.stem((1.0 - 2.0 * MARGIN) * pictures + MARGIN)
            for number, group in enumerate(self.groups):
                x = group(F.max_pool2d(x, 2) if number else x)
            logits: Tensor = self.head(F.relu(x))
            return logits

    def ids(self, pictures: Float[Tensor, "B 3 H W"]) -> Int[Tensor, "B h w"]:
        """The likeliest id of each place."""
        logits: Tensor = self(pictures)
        return logits.argmax(1)


def _numbered(modules: Iterable[nn.Module]) -> nn.Sequential:
    """One after the other, named from 1 as the authors do."""
    return nn.Sequential(OrderedDict((str(number), module) for number, module in enumerate(modules, start=1)))


class _ResidualBlock(nn.Module):
    """Four convolutions to a quarter of the channels and back, weighed by `gain`, beside the way straight on."""

    def __init__(self, width_in: int, width: int, *, gain: float) -> None:
        super().__init__()
        self.gain = gain
        hidden = width // 4
        self.skip = nn.Identity() if width_in == width else nn.Conv2d(width_in, width, 1)
        threes = [nn.Conv2d(into, hidden, 3, padding=1) for into in (width_in, hidden, hidden)]
        self.convs = _numbered([*threes, nn.Conv2d(hidden, width, 1)])

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B _ H W"]:
        branch = x
        for conv in self.convs:
            branch = conv(F.relu(branch))
        out: Tensor = self.skip(x) + self.gain * branch
        return out
