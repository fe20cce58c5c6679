"""Cubes of pixels to tokens."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
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
