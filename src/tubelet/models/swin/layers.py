"""What a Video Swin is made of: embedding of cubes, attention in windows, blocks, merging of patches."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from tubelet.nn.attention import attend
from tubelet.nn.block import Mlp
from tubelet.nn.drop_path import DropPath
from tubelet.nn.patch import CubeEmbed
from tubelet.nn.pixels import all_cubes
from tubelet.nn.windows import Partition, Step, into_windows, out_of_windows, table_rows
from tubelet.types import Cube, Grid


class PatchEmbed(nn.Module):
    """A linear map of each cube as in `CubeEmbed`, and a norm where `normed`. Names: `weight`, `bias`, `norm`.

    An image has one of its own, with a cube of one frame.
    """

    def __init__(self, width: int, cube: Cube, *, normed: bool, norm_eps: float) -> None:
        super().__init__()
        self.cube = cube
        linear = CubeEmbed(width, cube)
        self.weight, self.bias = linear.weight, linear.bias
        self.norm = nn.LayerNorm(width, eps=norm_eps) if normed else nn.Identity()

    def forward(self, video: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B N D"]:
        """Tokens in raster order of `grid_of`; a video that cubes do not divide is padded with zeros at its ends."""
        ends = [-side % step for side, step in zip(video.shape[2:], self.cube, strict=True)]
        if any(ends):
            frames, height, width = ends
            video = F.pad(video, (0, width, 0, height, 0, frames))
        tokens = F.linear(all_cubes(video, self.cube).flatten(2), self.weight.flatten(1), self.bias)
        normed: Tensor = self.norm(tokens.to(self.weight.dtype))  # tokens stay in float32 under autocast
        return normed

    def grid_of(self, video: Float[Tensor, "B C T H W"]) -> Grid:
        """The token grid of a video, with what is padded."""
        t, h, w = (-(-side // step) for side, step in zip(video.shape[2:], self.cube, strict=True))
        return Grid(t, h, w)


class WindowAttention(nn.Module):
    """Multi-head attention among the tokens of a window, with a learnt bias for each distance (arXiv:2106.13230, 3.2).

    Windows that share a mask are one batch, so a mask is added to the biases once for all of them. Names: `table`
    ([R,heads], distances in time slowest), `qkv`, `proj`.
    """

    def __init__(self, width: int, heads: int, window: Step) -> None:
        super().__init__()
        self.heads = heads
        self.table = nn.Parameter(torch.empty(table_rows(window), heads))
        nn.init.trunc_normal_(self.table, std=0.02)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Float[Tensor, "B N D"], partition: Partition) -> Float[Tensor, "B N D"]:
        qkv = self.qkv(into_windows(tokens, partition))
        bias = self.table[partition.rows].permute(2, 0, 1)
        length, first, mixed = len(partition.rows), 0, []
        for group, count in enumerate(partition.counts):
            if not count:
                continue
            windows = qkv[:, first * length : (first + count) * length]
            masked = bias if group == 0 else bias + partition.masks[group - 1].to(bias.dtype)
            mixed.append(self._attended(windows, masked))
            first += count
        joined = mixed[0] if len(mixed) == 1 else torch.cat(mixed, dim=1)
        projected: Tensor = self.proj(out_of_windows(joined, partition))
        return projected

    def _attended(self, qkv: Float[Tensor, "B S W"], bias: Float[Tensor, "heads L L"]) -> Float[Tensor, "B S D"]:
        """`qkv` holds whole windows, one after another."""
        windows = rearrange(
            qkv, "B (n L) (three heads d) -> three (B n) heads L d", L=bias.shape[-1], three=3, heads=self.heads
        )
        q, k, v = windows.unbind(0)
        mixed = attend(q, k, v, bias=bias.to(q.dtype).unsqueeze(0))
        return rearrange(mixed, "(B n) heads L d -> B (n L) (heads d)", B=qkv.shape[0])


class WindowBlock(nn.Module):
    """`x + attention(norm1(x))`, then `x + mlp(norm2(x))`, in windows of a partition (arXiv:2106.13230, 3.1)."""

    def __init__(self, attention: WindowAttention, *, mlp_ratio: float, drop_path: float, norm_eps: float) -> None:
        super().__init__()
        width = attention.proj.out_features
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attention = attention
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Float[Tensor, "B N D"], partition: Partition) -> Float[Tensor, "B N D"]:
        tokens = tokens + self.drop_path(self.attention(self.norm1(tokens), partition))
        changed: Tensor = self.mlp(self.norm2(tokens))
        return torch.add(tokens, self.drop_path(changed))


class PatchMerging(nn.Module):
    """Four neighbours in space become one token of twice the width: a norm, and a linear map without bias."""

    def __init__(self, width: int, *, norm_eps: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width, eps=norm_eps)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, tokens: Float[Tensor, "B N D"], grid: Grid) -> Float[Tensor, "B M W"]:
        """Tokens of a grid with half the sides, rounded up: a row or column of zeros is added to an odd one."""
        frames = tokens.unflatten(1, tuple(grid))
        if grid.h % 2 or grid.w % 2:
            frames = F.pad(frames, (0, 0, 0, grid.w % 2, 0, grid.h % 2))
        four = rearrange(frames, "B t (h r) (w c) D -> B (t h w) (c r D)", r=2, c=2)  # columns outside, as the authors
        merged: Tensor = self.reduction(self.norm(four))
        return merged.to(self.norm.weight.dtype)


class StageBlocks(nn.Module):
    """Blocks of one grid and width, and the merging behind them, but for the last stage. Names: `blocks`, `merge`."""

    def __init__(self, blocks: list[WindowBlock], merge: PatchMerging | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.merge = merge
