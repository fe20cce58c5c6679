"""The block of a multiscale transformer: it may halve the grid and widen the tokens."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from tubelet.nn.block import Mlp
from tubelet.nn.drop_path import DropPath
from tubelet.nn.multiscale.attention import PoolingAttention, Step, pooled_grid
from tubelet.types import Grid


class PoolingBlock(nn.Module):
    """`pool(x) + attention(norm1(x))`, then `x + mlp(norm2(x))` (MViTv2, arXiv:2112.01526; SlowFast `attention.py`).

    Where tokens get wider, the branch that widens also gives the skip: attention that is wider than its input adds to
    `pool(proj(norm1(x)))`, an MLP that is wider than attention to `proj(norm2(x))`.
    """

    def __init__(
        self, attention: PoolingAttention, *, width: int, mlp_ratio: float, drop_path: float, norm_eps: float
    ) -> None:
        super().__init__()
        width_in = attention.qkv.in_features
        self.norm1 = nn.LayerNorm(width_in, eps=norm_eps)
        self.attention = attention
        self.norm2 = nn.LayerNorm(attention.width, eps=norm_eps)
        self.mlp = Mlp(attention.width, int(attention.width * mlp_ratio), out=width)
        self.widens_in_attention = attention.width != width_in
        self.widens_in_mlp = width != attention.width
        self.proj = nn.Linear(width_in, width) if width != width_in else None
        self.drop_path = DropPath(drop_path)
        self._check()

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B M W"]:
        """Tokens of the grid that attention goes out with, a class token in front staying in front."""
        normed = self.norm1(tokens)
        attended = self.attention(normed)
        skip = self.proj(normed).to(tokens.dtype) if self.proj is not None and self.widens_in_attention else tokens
        pooling = self.attention.pooling
        tokens = pool_skip(skip, pooling.grid, pooling.q_stride) + self.drop_path(attended)
        normed = self.norm2(tokens)
        changed = self.mlp(normed)
        skip = self.proj(normed).to(tokens.dtype) if self.proj is not None and self.widens_in_mlp else tokens
        out: Tensor = skip + self.drop_path(changed)
        return out

    def _check(self) -> None:
        pooling = self.attention.pooling
        skipped = pooled_grid(pooling.grid, skip_kernel(pooling.q_stride), pooling.q_stride)
        if skipped != pooling.q_grid:
            raise ValueError(
                f"stride {pooling.q_stride} with a pooling kernel of {pooling.kernel} makes {tuple(pooling.q_grid)} of "
                f"{tuple(pooling.grid)} tokens, but {tuple(skipped)} on the way around; choose a stride of 1, 2 or 4"
            )


def pool_skip(tokens: Float[Tensor, "B N D"], grid: Grid, stride: Step) -> Float[Tensor, "B M D"]:
    """The maximum of neighbouring tokens where the grid gets coarser; a class token in front stays as it is."""
    if math.prod(stride) == 1:
        return tokens
    kernel = skip_kernel(stride)
    first = tokens.shape[1] - grid.tokens
    video = tokens[:, first:].unflatten(1, tuple(grid)).permute(0, 4, 1, 2, 3)
    pooled = F.max_pool3d(video, kernel, stride, tuple(side // 2 for side in kernel)).flatten(2).mT
    return torch.cat([tokens[:, :first], pooled], dim=1) if first else pooled


def skip_kernel(stride: Step) -> Step:
    """One more than the stride on each axis that gets coarser."""
    t, h, w = (step + 1 if step > 1 else 1 for step in stride)
    return t, h, w
