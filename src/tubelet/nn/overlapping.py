"""The patch embedding of a multiscale transformer: a convolution whose cubes overlap."""

from __future__ import annotations

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn


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
