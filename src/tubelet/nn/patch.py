"""Cubes of pixels to tokens."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.nn import functional as F

from tubelet.types import Cube


class CubeEmbed(nn.Module):
    """A linear map of each cube (VideoMAE, arXiv:2203.12602, section 3.3: joint space-time cube embedding).

    The weight has the shape of the 3-D convolution that it replaces, [D,C,f,p,q], so checkpoints are only renamed;
    a matrix product over the cubes that are needed is the same sum as the convolution over all of them.
    """

    def __init__(self, width: int, cube: Cube, *, channels: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, channels, *cube))
        self.bias = nn.Parameter(torch.empty(width))
        bound = 1.0 / math.sqrt(self.weight[0].numel())  # PyTorch's default of a convolution
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, cubes: Float[Tensor, "B N C f p q"]) -> Float[Tensor, "B N D"]:
        return F.linear(cubes.flatten(2), self.weight.flatten(1), self.bias)


class OverlappingCubes(nn.Conv3d):
    """A 3-D convolution that keeps clear of two faults of PyTorch's bfloat16 one on a CPU (oneDNN, torch 2.13).

    Where the kernel is longer than the clip it reads past the end: other numbers at each call, or a crash. Where the
    output is one column wide and there is a stride it is wrong (pytorch/pytorch#169688). Both are taken in float32.
    """

    def forward(self, video: Num[Tensor, "B C T H W"]) -> Float[Tensor, "B D t h w"]:
        """Cubes to tokens."""
        columns = (video.shape[4] + 2 * int(self.padding[2]) - self.kernel_size[2]) // self.stride[2] + 1
        if video.device.type == "cpu" and (video.shape[2] < self.kernel_size[0] or columns == 1):
            with torch.autocast("cpu", enabled=False):
                return super().forward(video.float())
        return super().forward(video)
