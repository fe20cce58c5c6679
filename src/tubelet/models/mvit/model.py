"""MViTv2 (arXiv:2112.01526), top to bottom: its spec, the shapes that follow, its network.

Overlapping cubes, a grid that gets coarser from stage to stage, relative positions; what its blocks are made of is in
`layers.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import torch
from jaxtyping import Bool, Float, Int, Num
from pydantic import Field, model_validator
from torch import Tensor, nn

from tubelet.disk.tensors import State
from tubelet.models.base import Encoder, EncoderSpec, Grids, Stretched, layer_in_stack
from tubelet.models.mvit.layers import (
    OverlappingCubes,
    Pooling,
    PoolingAttention,
    PoolingBlock,
    Step,
    stretched_tables,
    table_rows,
)
from tubelet.nn.block import NORM_EPS, recompute
from tubelet.nn.drop_path import drop_path_rates
from tubelet.nn.init import biased_normal_
from tubelet.nn.pixels import Colours, Normalise, cells_to_tokens
from tubelet.nn.position import learnt
from tubelet.spec import Spec
from tubelet.types import ClipShape, Cube, Grid

ONE: Final[Step] = (1, 1, 1)
Stride = Annotated[int, Field(ge=1)]
Strides = tuple[Stride, Stride, Stride]


class MViTStage(Spec):
    """From block `start` on, tokens are `width` times as wide, heads `heads` times as many, the grid as much coarser
    as `stride` (time, down, across) says."""

    start: int = Field(ge=0)
    width: int = Field(default=2, ge=1)
    heads: int = Field(default=2, ge=1)
    stride: Strides = (1, 2, 2)


class MViTSpec(EncoderSpec):
    """Size and options of an `MViT`; the default is MViTv2-S as it is trained with labels (SlowFast `MVITv2_S_16x4`).

    MaskFeat (arXiv:2112.09133) changes `widen_in` to "mlp" and, while it hides cubes, `last_stage_stride` to 1.
    """

    kind: Literal["mvit"] = "mvit"
    width: int = Field(default=96, ge=2, description="of a token in the first stage")
    depth: int = Field(default=16, ge=1)
    heads: int = Field(default=1, ge=1, description="in the first stage")
    stages: tuple[MViTStage, ...] = (MViTStage(start=1), MViTStage(start=3), MViTStage(start=14))
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

    @property
    def has_class_token(self) -> bool:
        """As `class_token` says."""
        return self.class_token

    @property
    def can_drop(self) -> bool:
        """Pooling needs the whole grid."""
        return False

    @property
    def position_kind(self) -> str:
        """All are learnt."""
        return "learnt, relative" if self.relative_space else "learnt"

    def facts(self) -> dict[str, Any]:
        """Sizes of the last stage, and where tokens get wider."""
        return {
            **super().facts(),
            "mlp": int(self.out_width * self.mlp_ratio),
            "widens_in_attention": self.widen_in == "attention",
            "widens_in_mlp": self.widen_in == "mlp",
            "class_token": self.class_token,
        }

    def grids(self, clip: ClipShape) -> Grids:
        """Tokens behind the embedding, and those of the last stage; ValueError as `first_grid`."""
        return Grids(self.first_grid(clip), block_shapes(self, clip)[-1].pooling.q_grid)

    def assemble(self, clip: ClipShape, *, final_norm: bool, masked: bool = False) -> MViT:
        """The module; its linear maps as PyTorch draws them."""
        return MViT(self, clip, final_norm=final_norm, masked=masked)

    @classmethod
    def tiny(cls) -> MViTSpec:
        """0.04 M parameters: three blocks, of which two begin a stage; a cube is 2 x 16 x 16."""
        return cls(width=32, depth=3, stages=(MViTStage(start=1), MViTStage(start=2)), kv_stride=(1, 4, 4))

    def stretched(self, state: State, before: ClipShape | None, after: ClipShape) -> Stretched:  # noqa: ARG002
        """Tables are interpolated to the lengths that `after` needs, from those they have, whatever `before` is.

        Relative ones and that of time linearly, that of space bicubically (SlowFast `checkpoint.py`).
        """
        with torch.device("meta"):
            wanted = self.assemble(after, final_norm=False).state_dict()
        return Stretched(self, *stretched_tables(state, wanted))

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


MVIT_S: Final = MViTSpec()
"""34.5 M parameters, 64 GFLOPs with 16 frames of 224 (SlowFast `MVITv2_S_16x4`; drop path 0.2)."""
MVIT_B: Final = MViTSpec(depth=24, stages=(MViTStage(start=2), MViTStage(start=5), MViTStage(start=21)))
"""51.2 M parameters, 225 GFLOPs with 32 frames of 224 (SlowFast `MVITv2_B_32x3`; drop path 0.3)."""
MVIT_L: Final = MViTSpec(
    width=144, heads=2, depth=48, stages=(MViTStage(start=2), MViTStage(start=8), MViTStage(start=44))
)
"""217.6 M parameters, 2828 GFLOPs with 40 frames of 312 (SlowFast `MVITv2_L_40x3`; drop path 0.75)."""


class MViT(Encoder):
    """MViTv2 (arXiv:2112.01526), the encoder of MaskFeat (arXiv:2112.09133).

    `grid` has the tokens behind the patch embedding, `out_grid` those that come out, `out_width` wide; `spec.cube` is
    of the latter. With `masked` it has a `mask_token` for what is hidden. Names that training relies on: `patch_embed`,
    `class_token`, `pos_embed_space`, `pos_embed_time`, `pos_embed_class`, `mask_token`, `blocks.{i}`, `norm` (empty
    without `final_norm`).
    """

    spec: MViTSpec

    def __init__(self, spec: MViTSpec, clip: ClipShape, *, final_norm: bool = False, masked: bool = True) -> None:
        super().__init__()
        self.spec = spec
        self.clip = clip
        shapes = block_shapes(spec, clip)
        self.grid, self.out_grid = shapes[0].pooling.grid, shapes[-1].pooling.q_grid
        self.layers = spec.depth + 1
        self.out_width, self.out_heads = spec.out_width, spec.out_heads
        self.normalise = Normalise(spec.colours)
        self.patch_embed = OverlappingCubes(3, spec.width, spec.patch_kernel, spec.patch_stride, spec.patch_padding)
        self._check_grid()
        self.class_token = learnt(1, spec.width) if spec.class_token else None
        self.mask_token = learnt(1, spec.width) if masked else None
        absolute = spec.absolute_positions
        self.pos_embed_space = learnt(self.grid.h * self.grid.w, spec.width) if absolute else None
        self.pos_embed_time = learnt(self.grid.t, spec.width) if absolute else None
        self.pos_embed_class = learnt(1, spec.width) if absolute and spec.class_token else None
        rates = drop_path_rates(spec.drop_path, spec.depth)
        self.blocks = nn.ModuleList(_block(spec, shape, rate) for shape, rate in zip(shapes, rates, strict=True))
        self.norm = nn.LayerNorm(self.out_width, eps=spec.norm_eps) if final_norm else nn.Identity()

    def forward(
        self,
        video: Num[Tensor, "B C T H W"],
        seen: Int[Tensor, "B V"] | None = None,
        *,
        hidden: Bool[Tensor, "B t h w"] | None = None,
    ) -> Float[Tensor, "B N {self.out_width}"]:
        """Tokens of `out_grid` in raster order; the class token is left out (`with_class` keeps it).

        No token can be dropped (`seen`). Where `hidden` is True the embedded tokens are the mask token instead; it may
        be in `grid` or in any coarser grid whose sides divide those of `grid`, such as `out_grid` or MaskFeat's cells
        of 32 pixels.
        """
        assert seen is None, "pooling needs the whole grid"
        tokens = self.with_class(video, hidden)
        return tokens[:, 1:] if self.class_token is not None else tokens

    def with_class(
        self, video: Num[Tensor, "B C T H W"], hidden: Bool[Tensor, "B t h w"] | None = None
    ) -> Float[Tensor, "B M {self.out_width}"]:
        """The same behind the class token, where the model has one."""
        tokens = self._embed(video, hidden)
        for block in self.blocks:
            tokens = recompute(block, tokens) if self.spec.checkpointing and self.training else block(tokens)
        out: Tensor = self.norm(tokens)
        return out

    def tokens_and_class(
        self, video: Num[Tensor, "B C T H W"]
    ) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B D"] | None]:
        """All tokens in raster order, and the class token where there is one."""
        tokens = self.with_class(video)
        return (tokens, None) if self.class_token is None else (tokens[:, 1:], tokens[:, 0])

    def layer_of(self, name: str) -> int:
        """The embedding with positions and special tokens is 0, block i is i + 1, the final norm is on top."""
        return layer_in_stack(name, self.spec.depth)

    def stack(self) -> tuple[nn.Module, ...]:
        """Its blocks in order."""
        return tuple(self.blocks)

    @staticmethod
    def init_linear(layer: nn.Module) -> None:
        """Normal with deviation 0.02, biases 0.02 as well."""
        biased_normal_(layer)

    def _embed(
        self, video: Num[Tensor, "B C T H W"], hidden: Bool[Tensor, "B t h w"] | None
    ) -> Float[Tensor, "B M {self.spec.width}"]:
        self.check(video)
        tokens: Tensor = self.patch_embed(self.normalise.video(video)).flatten(2).mT
        tokens = tokens.to(self.patch_embed.weight.dtype)  # tokens stay in float32 under autocast, as in a ViT
        if hidden is not None:
            assert self.mask_token is not None
            tokens = torch.where(
                cells_to_tokens(hidden, self.grid).unsqueeze(-1), self.mask_token.to(tokens.dtype), tokens
            )
        if self.pos_embed_space is not None and self.pos_embed_time is not None:
            positions = self.pos_embed_time.unsqueeze(2) + self.pos_embed_space.unsqueeze(1)
            tokens = tokens + positions.flatten(1, 2)
        if self.class_token is None:
            return tokens
        first = self.class_token if self.pos_embed_class is None else self.class_token + self.pos_embed_class
        return torch.cat([first.to(tokens.dtype).expand(tokens.shape[0], -1, -1), tokens], dim=1)

    def _check_grid(self) -> None:
        spec, clip = self.spec, (self.clip.frames, self.clip.size, self.clip.size)
        sides = zip(clip, spec.patch_kernel, spec.patch_padding, spec.patch_stride, strict=True)
        made = tuple((side + 2 * padding - kernel) // stride + 1 for side, kernel, padding, stride in sides)
        if made != tuple(self.grid):
            raise ValueError(
                f"a patch kernel of {spec.patch_kernel} with padding {spec.patch_padding} makes {made} tokens, not one "
                f"for each step of {spec.patch_stride}; choose padding = kernel // 2"
            )


def _block(spec: MViTSpec, shape: BlockShape, drop_path: float) -> PoolingBlock:
    widths = shape.widths
    attention = PoolingAttention(
        shape.pooling, width_in=widths.into, width=widths.attention, heads=widths.heads, norm_eps=spec.norm_eps
    )
    return PoolingBlock(
        attention, width=widths.out, mlp_ratio=spec.mlp_ratio, drop_path=drop_path, norm_eps=spec.norm_eps
    )
