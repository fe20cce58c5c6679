"""Attention that pools its queries, keys and values in space and time first (MViTv2, arXiv:2112.01526, section 4.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from tubelet.nn.attention import attend
from tubelet.nn.cpu.pooling import depthwise
from tubelet.nn.multiscale.relative import RelativePositions
from tubelet.types import Grid

Step = tuple[int, int, int]
"""Frames or tokens along time, down and across."""
TILE: Final = 8
"""Columns in which kernels of attention read their rows."""


@dataclass(frozen=True)
class Pooling:
    """Shapes of one pooling attention. `grid` comes in, `q_grid` goes out, keys and values are in `kv_grid`.

    `rows` are the lengths of the tables of relative positions on t, h, w; 0 for none. `residual`: pooled queries are
    added to what attention gives.
    """

    grid: Grid
    kernel: Step
    q_stride: Step
    kv_stride: Step
    rows: tuple[int, int, int] = (0, 0, 0)
    residual: bool = True

    @property
    def q_grid(self) -> Grid:
        return pooled_grid(self.grid, self.kernel, self.q_stride)

    @property
    def kv_grid(self) -> Grid:
        return pooled_grid(self.grid, self.kernel, self.kv_stride)


def pooled_grid(grid: Grid, kernel: Step, stride: Step) -> Grid:
    """The grid behind a convolution that is padded by half its kernel: sides are rounded up where it is odd."""
    return Grid(*[(n + 2 * (k // 2) - k) // s + 1 for n, k, s in zip(grid, kernel, stride, strict=True)])


class Pool(nn.Module):
    """A depthwise convolution over the grid, shared by the heads, then LayerNorm of each head.

    A class token in front is only normed.
    """

    def __init__(self, head_width: int, kernel: Step, stride: Step, *, norm_eps: float) -> None:
        super().__init__()
        self.stride = stride
        self.padding = tuple(side // 2 for side in kernel)
        self.weight = nn.Parameter(torch.empty(head_width, 1, *kernel))
        nn.init.trunc_normal_(self.weight, std=0.02)
        self.norm = nn.LayerNorm(head_width, eps=norm_eps)

    def forward(self, tokens: Float[Tensor, "B N D"], grid: Grid) -> Float[Tensor, "B heads M d"]:
        """Pooled heads; `tokens` are those of the grid, behind a class token where there is one more."""
        heads = tokens.shape[-1] // len(self.weight)
        first = tokens.shape[1] - grid.tokens
        pooled = self._convolve(tokens[:, first:], grid, heads)
        if first:
            pooled = torch.cat([tokens[:, :first].to(pooled.dtype), pooled], dim=1)
        normed: Tensor = self.norm(pooled.unflatten(-1, (heads, -1)))
        return normed.to(tokens.dtype).transpose(1, 2)

    def _convolve(self, tokens: Float[Tensor, "B N D"], grid: Grid, heads: int) -> Float[Tensor, "B M D"]:
        """All heads in one convolution over rows of D channels, so that nothing is moved in memory.

        On a CPU always in float32: the gradient of PyTorch's bf16 convolution is several times as slow there.
        """
        video = tokens.unflatten(1, tuple(grid)).permute(0, 4, 1, 2, 3)
        weight = self.weight.repeat(heads, 1, 1, 1, 1)
        if tokens.device.type == "cpu":
            with torch.autocast("cpu", enabled=False):
                pooled = depthwise(video.float(), weight.float(), self.stride)
        else:
            pooled = F.conv3d(video, weight, None, self.stride, self.padding, 1, len(weight))
        return pooled.flatten(2).mT


class PoolingAttention(nn.Module):
    """Multi-head attention between pooled queries, keys and values, with decomposed relative positions.

    The relative positions are asked by the pooled query as it is, before it is scaled (SlowFast `attention.py`).
    """

    def __init__(self, pooling: Pooling, *, width_in: int, width: int, heads: int, norm_eps: float) -> None:
        super().__init__()
        self.pooling = pooling
        self.width = width
        head_width = width // heads
        self.qkv = nn.Linear(width_in, 3 * width)
        self.pool_q = Pool(head_width, pooling.kernel, pooling.q_stride, norm_eps=norm_eps)
        self.pool_k = Pool(head_width, pooling.kernel, pooling.kv_stride, norm_eps=norm_eps)
        self.pool_v = Pool(head_width, pooling.kernel, pooling.kv_stride, norm_eps=norm_eps)
        self.relative = RelativePositions(head_width, pooling.q_grid, pooling.kv_grid, rows=pooling.rows)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B M W"]:
        """Tokens of `pooling.q_grid`, behind a class token where one came in."""
        grid = self.pooling.grid
        q, k, v = self.qkv(tokens).chunk(3, dim=-1)
        q, k, v = self.pool_q(q, grid), self.pool_k(k, grid), self.pool_v(v, grid)
        first = tokens.shape[1] - grid.tokens
        answers, places = self._relative(q, first)
        mixed = attend_fused(q, k, v, answers, places)
        if self.pooling.residual:  # the class token goes without
            mixed = torch.cat([mixed[:, :, :first], mixed[:, :, first:] + q[:, :, first:]], dim=2)
        projected: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return projected

    def _relative(
        self, q: Float[Tensor, "B heads M d"], first: int
    ) -> tuple[Float[Tensor, "B heads M E"], Float[Tensor, "K E"]]:
        """Answers and places; a class token has none, as a query and as a key."""
        places = self.relative.places
        if not places.shape[1]:
            return q[..., :0], F.pad(places, (0, 0, first, 0))
        answers = self.relative(q[:, :, first:])
        return F.pad(answers, (0, 0, first, 0)), F.pad(places, (0, 0, first, 0))


def attend_fused(
    q: Float[Tensor, "B heads M d"],
    k: Float[Tensor, "B heads K d"],
    v: Float[Tensor, "B heads K d"],
    answers: Float[Tensor, "B heads M E"],
    places: Float[Tensor, "K E"],
) -> Float[Tensor, "B heads M d"]:
    """softmax(q k' / sqrt(d) + answers places') v, without a matrix of all queries and keys.

    The bias is a product too, of few columns: behind those of queries and keys they go through any kernel of attention.
    """
    width, extra = q.shape[-1], answers.shape[-1]
    if not extra:
        return attend(q, k, v)
    wide = -(-(width + extra) // TILE) * TILE
    room = (0, wide - width - extra)
    asks = torch.cat([q * math.sqrt(wide / width), F.pad(answers * math.sqrt(wide), room)], dim=-1)
    behind = F.pad(places, room).to(k.dtype).expand(*k.shape[:3], -1)
    known = torch.cat([k, behind], dim=-1)
    given = F.pad(v, (0, wide - width))  # kernels want values as wide as keys
    return attend(asks, known, given)[..., :width]


def attend_plain(
    q: Float[Tensor, "B heads M d"],
    k: Float[Tensor, "B heads K d"],
    v: Float[Tensor, "B heads K d"],
    answers: Float[Tensor, "B heads M E"],
    places: Float[Tensor, "K E"],
) -> Float[Tensor, "B heads M d"]:
    """The same with all logits in memory: what `attend_fused` is tested against."""
    logits = (q * q.shape[-1] ** -0.5) @ k.mT + answers @ places.to(answers.dtype).mT
    mixed: Tensor = logits.softmax(-1).to(v.dtype) @ v
    return mixed
