"""What MViTv2 is made of: pooling attention, relative positions, its block, its embedding (arXiv:2112.01526).

Shape letters beside the usual ones: M queries and K keys behind the pooling, E the sum of the key grid's sides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn
from torch.nn import functional as F

from tubelet.disk.tensors import State
from tubelet.nn.attention import attend
from tubelet.nn.block import Mlp
from tubelet.nn.constants import register_constants
from tubelet.nn.cpu import depthwise
from tubelet.nn.drop_path import DropPath
from tubelet.nn.position import stretch
from tubelet.types import Grid

Step = tuple[int, int, int]
"""Frames or tokens along time, down and across."""
TILE: Final = 8
"""Columns in which kernels of attention read their rows."""
AXES: Final = ("t", "h", "w")
_LINEAR: Final = (*(f"rel_pos_{axis}" for axis in AXES), "pos_embed_time")
_SQUARE: Final = "pos_embed_space"
_ANSWERS: Final = ("bnthwd,tkd->bnthwk", "bnthwd,hkd->bnthwk", "bnthwd,wkd->bnthwk")


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


class RelativePositions(nn.Module):
    """A vector per distance on each axis; a query's product with it is added to its logit (arXiv:2112.01526, 4.1).

    `rows` are the lengths of the tables `rel_pos_t`, `rel_pos_h`, `rel_pos_w`, 0 for an axis that has none; a table of
    another length than the grids need is interpolated in every pass. Queries and keys may lie in grids of different
    step: the coarser one counts in steps of the finer.
    """

    places: Tensor

    def __init__(self, width: int, q_grid: Grid, kv_grid: Grid, *, rows: tuple[int, int, int]) -> None:
        super().__init__()
        self.q_grid, self._kv_grid = q_grid, kv_grid
        self.axes = [axis for axis in range(3) if rows[axis]]
        for axis in self.axes:
            table = nn.Parameter(torch.empty(rows[axis], width))
            nn.init.trunc_normal_(table, std=0.02)
            self.register_parameter(f"rel_pos_{AXES[axis]}", table)
        register_constants(self)

    def constants(self) -> dict[str, Tensor]:
        """Rows of the tables for each query and key of an axis, and the places of the keys."""
        rows = {f"distance_{AXES[axis]}": distances(self.q_grid[axis], self._kv_grid[axis]) for axis in self.axes}
        return {**rows, "places": places(self._kv_grid, self.axes)}

    def forward(self, q: Float[Tensor, "B heads N d"]) -> Float[Tensor, "B heads N E"]:
        """What each query, one per token of its grid, adds for a key in each place of each axis.

        `answers @ places.mT` is the bias of the logits; `E` is the sum of the key grid's sides.
        """
        asks = q.unflatten(2, tuple(self.q_grid))
        answers = []
        for axis in self.axes:
            index = self.get_buffer(f"distance_{AXES[axis]}")
            table = self.get_parameter(f"rel_pos_{AXES[axis]}")
            needed = table_rows(*index.shape)
            rows: Tensor = table if len(table) == needed else stretch_rows(table, needed)
            answers.append(torch.einsum(_ANSWERS[axis], asks, rows[index]).flatten(2, 4))
        return torch.cat(answers, dim=-1)


def table_rows(q_side: int, kv_side: int) -> int:
    """How many distances there are between two rows of places."""
    return 2 * max(q_side, kv_side) - 1


def distances(queries: int, keys: int) -> Int[Tensor, "q k"]:
    """Row of the table for each query and key of one axis; the farthest key behind the first query is row 0.

    # authors: distances in steps of the finer grid are cut to whole ones where the sides are no multiples.
    """
    q_step, k_step = max(keys / queries, 1.0), max(queries / keys, 1.0)
    q = torch.arange(queries, device="cpu").unsqueeze(1) * q_step
    k = torch.arange(keys, device="cpu").unsqueeze(0) * k_step
    return (q - k + (keys - 1) * k_step).long()


def places(grid: Grid, axes: list[int]) -> Float[Tensor, "N E"]:
    """Where each key is: a one for its place on each of these axes, zeros else."""
    index = torch.meshgrid(*[torch.arange(side) for side in grid], indexing="ij")
    columns = [F.one_hot(index[axis].flatten(), grid[axis]).float() for axis in axes]
    return torch.cat(columns, dim=1) if columns else torch.zeros(grid.tokens, 0)


def stretch_rows(table: Float[Tensor, "R D"], rows: int) -> Float[Tensor, "_ D"]:
    """A table of one axis for another number of rows: linear, ends not aligned (SlowFast `checkpoint.py`)."""
    stretched: Tensor = F.interpolate(table.mT.unsqueeze(0), size=rows, mode="linear", align_corners=False)
    return stretched[0].mT


def stretched_tables(state: State, wanted: State) -> tuple[State, str]:
    """The state with its position tables as long as those of `wanted` with the same names; a note where one was not."""
    found = {name: _stretched(name, table, wanted[name]) for name, table in state.items() if name in wanted}
    changed = {name: table for name, table in found.items() if table is not state[name]}
    if not changed:
        return state, ""
    first, table = next(iter(changed.items()))
    note = (
        f"{len(changed)} position tables are interpolated to the model's grid, such as {first}: "
        f"{state[first].shape[-2]} to {table.shape[-2]} rows"
    )
    return {**state, **changed}, note


def _stretched(name: str, table: Tensor, wanted: Tensor) -> Tensor:
    """The table with as many rows as the wanted one; itself where it is none, or differs in more than its length."""
    last = name.rpartition(".")[2]
    if table.shape == wanted.shape or table.shape[-1] != wanted.shape[-1] or table.ndim != wanted.ndim:
        return table
    if last in _LINEAR:
        rows = stretch_rows(table.flatten(0, -2).float(), wanted.shape[-2])
        return rows.to(table.dtype).reshape(wanted.shape)
    if last == _SQUARE:
        old_side, side = math.isqrt(table.shape[-2]), math.isqrt(wanted.shape[-2])
        return stretch(table, Grid(1, old_side, old_side), Grid(1, side, side))
    return table
