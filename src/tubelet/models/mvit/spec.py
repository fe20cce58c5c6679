"""Sizes and options of a multiscale video transformer (MViTv2, arXiv:2112.01526), and the shapes that follow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from tubelet.nn.block import NORM_EPS
from tubelet.nn.multiscale.attention import Pooling, Step
from tubelet.nn.multiscale.relative import table_rows
from tubelet.nn.pixels import Colours
from tubelet.spec import Spec
from tubelet.types import ClipShape, Cube, Grid

ONE: Final[Step] = (1, 1, 1)
Stride = Annotated[int, Field(ge=1)]
Strides = tuple[Stride, Stride, Stride]


class Stage(Spec):
    """From block `start` on, tokens are `width` times as wide, heads `heads` times as many, the grid as much coarser
    as `stride` (time, down, across) says."""

    start: int = Field(ge=0)
    width: int = Field(default=2, ge=1)
    heads: int = Field(default=2, ge=1)
    stride: Strides = (1, 2, 2)


class MViTSpec(Spec):
    """Size and options of an `MViT`; the default is MViTv2-S as it is trained with labels (SlowFast `MVITv2_S_16x4`).

    MaskFeat (arXiv:2112.09133) changes `widen_in` to "mlp" and, while it hides cubes, `last_stage_stride` to 1.
    """

    kind: Literal["mvit"] = "mvit"
    width: int = Field(default=96, ge=2, description="of a token in the first stage")
    depth: int = Field(default=16, ge=1)
    heads: int = Field(default=1, ge=1, description="in the first stage")
    stages: tuple[Stage, ...] = (Stage(start=1), Stage(start=3), Stage(start=14))
    last_stage_stride: int | None = Field(
        default=None, ge=1, description="spatial stride of the last stage in place of its own: 1 keeps its grid fine"
    )
    widen_in: Literal["attention", "mlp"] = Field(
        default="attention", description="a stage widens in its first attention, or in the MLP before it"
    )
    patch_kernel: Strides = (3, 7, 7)
    patch_stride: Strides = (2, 4, 4)
    patch_padding: tuple[int, int, int] = (1, 3, 3)
    pool_kernel: Strides = (3, 3, 3)
    kv_stride: Strides = Field(default=(1, 8, 8), description="in the first stage; divided by each stage's stride")
    relative_space: bool = Field(default=True, description="relative positions down and across, learnt")
    relative_time: bool = Field(default=True, description="relative positions in time, learnt")
    residual_pooling: bool = Field(default=True, description="pooled queries are added to what attention gives")
    class_token: bool = True
    absolute_positions: bool = Field(default=False, description="learnt tables of space, time and the class token")
    mlp_ratio: float = Field(default=4.0, gt=0.0)
    drop_path: float = Field(default=0.0, ge=0.0, lt=1.0, description="rate of the last block; the first has 0")
    norm_eps: float = Field(default=NORM_EPS, gt=0.0)
    colours: Colours = Colours(mean=(0.45, 0.45, 0.45), std=(0.225, 0.225, 0.225))
    checkpointing: bool = Field(default=False, description="recompute blocks in backward: less memory, slower")

    @property
    def patch_cube(self) -> Cube:
        """What a token of the first grid stands for; the convolution that makes it looks further."""
        return Cube(*self.patch_stride)

    def first_grid(self, clip: ClipShape) -> Grid:
        """Of the tokens behind the patch embedding; ValueError where the patch stride does not divide the clip."""
        try:
            return clip.grid(self.patch_cube)
        except ValueError as error:
            raise ValueError(f"{error}; change it, or model.encoder.patch_stride") from error

    @property
    def cube(self) -> Cube:
        """What a token of the last grid stands for, where all strides divide the clip."""
        t, h, w = self.patch_stride
        for stage in range(len(self.stages)):
            a, b, c = self.stride_of(stage)
            t, h, w = t * a, h * b, w * c
        return Cube(t, h, w)

    @property
    def out_width(self) -> int:
        """Of a token in the last stage."""
        return self.width * math.prod(stage.width for stage in self.stages)

    @property
    def out_heads(self) -> int:
        """In the last stage; they divide its width."""
        return self.heads * math.prod(stage.heads for stage in self.stages)

    def stride_of(self, stage: int) -> Step:
        """Of the queries in the stage's first block."""
        t, h, w = self.stages[stage].stride
        if self.last_stage_stride is not None and stage == len(self.stages) - 1:
            return t, self.last_stage_stride, self.last_stage_stride
        return t, h, w

    def _starting_at(self, block: int) -> int | None:
        return next((number for number, stage in enumerate(self.stages) if stage.start == block), None)

    @model_validator(mode="after")
    def _stages_fit(self) -> MViTSpec:
        starts = [stage.start for stage in self.stages]
        if starts != sorted(set(starts)) or (starts and starts[-1] >= self.depth):
            raise ValueError(f"stages start at blocks {starts}; they must rise and be below the depth {self.depth}")
        if self.widen_in == "mlp" and any(stage.start == 0 and stage.width > 1 for stage in self.stages):
            raise ValueError("no MLP is before block 0 to widen it; start the stage later, or widen in attention")
        if self.last_stage_stride is not None and not self.stages:
            raise ValueError("last_stage_stride is given but there are no stages")
        for shape in _widths(self):
            if shape.attention % shape.heads:
                raise ValueError(f"width {shape.attention} of a stage is not a multiple of its heads {shape.heads}")
        return self


@dataclass(frozen=True)
class Widths:
    """Of one block: tokens that come in, attention, tokens that go out, and the heads."""

    into: int
    attention: int
    out: int
    heads: int


@dataclass(frozen=True)
class BlockShape:
    """Of one block: its widths, and the grids of its attention."""

    widths: Widths
    pooling: Pooling


def block_shapes(spec: MViTSpec, clip: ClipShape) -> tuple[BlockShape, ...]:
    """Of every block for clips of this shape; ValueError where the patch stride does not divide the clip.

    Grids are rounded up where a stride does not divide them, as the convolutions do; lengths of tables are reckoned
    with sides that are rounded down, as in released weights, and the tables interpolated in every pass.
    """
    grid = reckoned = spec.first_grid(clip)
    kv_stride: Step = spec.kv_stride
    shapes = []
    for block, widths in enumerate(_widths(spec)):
        stage = spec._starting_at(block)
        q_stride = ONE if stage is None else spec.stride_of(stage)
        kv_stride = _each(kv_stride, q_stride)
        pooling = Pooling(
            grid=grid,
            kernel=spec.pool_kernel,
            q_stride=q_stride,
            kv_stride=kv_stride,
            rows=_rows(spec, reckoned, q_stride, kv_stride),
            residual=spec.residual_pooling,
        )
        shapes.append(BlockShape(widths, pooling))
        grid, reckoned = pooling.q_grid, Grid(*_each(reckoned, q_stride))
    return tuple(shapes)


def _each(sides: Step, strides: Step) -> Step:
    """Whole parts, at least 1."""
    t, h, w = (max(side // stride, 1) for side, stride in zip(sides, strides, strict=True))
    return t, h, w


def _rows(spec: MViTSpec, grid: Grid, q_stride: Step, kv_stride: Step) -> tuple[int, int, int]:
    """Authors: tables of time have the length of the block's input, whatever its strides."""
    q, kv = _each(grid, q_stride), _each(grid, kv_stride)
    space = table_rows(q[1], kv[1]) if spec.relative_space else 0
    across = table_rows(q[2], kv[2]) if spec.relative_space else 0
    return table_rows(grid.t, grid.t) if spec.relative_time else 0, space, across


def _widths(spec: MViTSpec) -> tuple[Widths, ...]:
    width, heads = spec.width, spec.heads
    found = []
    for block in range(spec.depth):
        here, after = spec._starting_at(block), spec._starting_at(block + 1)
        heads *= 1 if here is None else spec.stages[here].heads
        into, attention = width, width
        if spec.widen_in == "attention":
            attention *= 1 if here is None else spec.stages[here].width
            width = attention
        else:
            width *= 1 if after is None else spec.stages[after].width
        found.append(Widths(into, attention, width, heads))
    return tuple(found)


def mvit_s(*, drop_path: float = 0.0) -> MViTSpec:
    """MViTv2-S: 34.5 M parameters, 64 GFLOPs with 16 frames of 224 (SlowFast `MVITv2_S_16x4`; drop path 0.2)."""
    return MViTSpec(drop_path=drop_path)


def mvit_b(*, drop_path: float = 0.0) -> MViTSpec:
    """MViTv2-B: 51.2 M parameters, 225 GFLOPs with 32 frames of 224 (SlowFast `MVITv2_B_32x3`; drop path 0.3)."""
    stages = (Stage(start=2), Stage(start=5), Stage(start=21))
    return MViTSpec(depth=24, stages=stages, drop_path=drop_path)


def mvit_l(*, drop_path: float = 0.0) -> MViTSpec:
    """MViTv2-L: 217.6 M parameters, 2828 GFLOPs with 40 frames of 312 (SlowFast `MVITv2_L_40x3`; drop path 0.75)."""
    stages = (Stage(start=2), Stage(start=8), Stage(start=44))
    return MViTSpec(width=144, heads=2, depth=48, stages=stages, drop_path=drop_path)
