"""Video Swin (arXiv:2106.13230), the encoder of BEVT (arXiv:2112.01529): its spec and its network.

Attention in shifted windows of space and time, a grid that gets coarser in space from stage to stage.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Annotated, Any, Final, Literal, cast

import torch
from jaxtyping import Bool, Float, Int, Num
from pydantic import Field, model_validator
from torch import Tensor, nn

from tubelet.disk.tensors import State
from tubelet.models.base import Encoder, EncoderSpec, Grids, Stretched
from tubelet.models.swin.layers import PatchEmbed, PatchMerging, StageBlocks, WindowAttention, WindowBlock
from tubelet.nn.block import Recomputing, recompute, recomputed_blocks
from tubelet.nn.drop_path import drop_path_rates
from tubelet.nn.init import truncated_normal_
from tubelet.nn.pixels import Colours, Normalise, cells_to_tokens
from tubelet.nn.windows import GridWindows, Step, WindowRule, stretch_table
from tubelet.spec import Spec, replace
from tubelet.types import ClipShape, Cube, Grid

SWIN_NORM_EPS: Final = 1e-5
Side = Annotated[int, Field(ge=1)]
TABLE: Final = "attention.table"
"""How names of tables of relative positions end."""


class SwinStage(Spec):
    """From block `start` on, tokens are twice as wide and the grid half as fine in space."""

    start: int = Field(ge=1)
    heads: int | None = Field(default=None, ge=1, description="null = twice those of the stage before")


class SwinSpec(EncoderSpec):
    """Size and options of a `Swin`; the default is Video Swin-T (arXiv:2106.13230)."""

    kind: Literal["swin"] = "swin"
    width: int = Field(default=96, ge=2, description="of a token in the first stage")
    depth: int = Field(default=12, ge=1, description="blocks of all stages together")
    heads: int = Field(default=3, ge=1, description="in the first stage")
    stages: tuple[SwinStage, ...] = (SwinStage(start=2), SwinStage(start=4), SwinStage(start=10))
    window: tuple[Side, Side, Side] = Field(default=(8, 7, 7), description="tokens in time, down and across")
    window_rule: Literal["clamped", "released"] = Field(
        default="clamped",
        description="where a grid is smaller than a window; released = as BEVT's code does, with its oddities",
    )
    patch: int = Field(default=4, ge=1, description="pixels down and across one embedded token")
    tubelet: int = Field(default=2, ge=1, description="frames of one token")
    patch_norm: bool = Field(default=True, description="a norm behind the patch embedding")
    mlp_ratio: float = Field(default=4.0, gt=0.0)
    drop_path: float = Field(default=0.0, ge=0.0, lt=1.0, description="rate of the last block; the first has 0")
    norm_eps: float = Field(default=SWIN_NORM_EPS, gt=0.0)
    colours: Colours = Colours()
    checkpointing: Recomputing = False

    @property
    def patch_cube(self) -> Cube:
        """What a token of the first grid stands for."""
        return Cube(self.tubelet, self.patch, self.patch)

    @property
    def cube(self) -> Cube:
        """What a token of the last grid stands for, where merging divides the clip."""
        side = self.patch * 2 ** len(self.stages)
        return Cube(self.tubelet, side, side)

    @property
    def stage_widths(self) -> tuple[int, ...]:
        """Width of a token in each stage."""
        return tuple(self.width * 2**stage for stage in range(len(self.stages) + 1))

    @property
    def stage_heads(self) -> tuple[int, ...]:
        """Heads in each stage."""
        heads = [self.heads]
        for stage in self.stages:
            heads.append(stage.heads or 2 * heads[-1])
        return tuple(heads)

    @property
    def stage_blocks(self) -> tuple[int, ...]:
        """How many blocks each stage has."""
        return tuple(end - start for start, end in pairwise([0, *(stage.start for stage in self.stages), self.depth]))

    @property
    def out_width(self) -> int:
        """In the last stage."""
        return self.stage_widths[-1]

    @property
    def out_heads(self) -> int:
        """In the last stage."""
        return self.stage_heads[-1]

    @property
    def has_class_token(self) -> bool:
        """None: classifiers read the mean of normed tokens."""
        return False

    @property
    def can_drop(self) -> bool:
        """GridWindows and merging need the whole grid."""
        return False

    @property
    def position_kind(self) -> str:
        """A bias for each distance within a window."""
        return "learnt, relative"

    def facts(self) -> dict[str, Any]:
        """Sizes of the last stage, and the window."""
        sizes = {"mlp": int(self.out_width * self.mlp_ratio), "blocks": list(self.stage_blocks)}
        return {**super().facts(), **sizes, "window": list(self.window)}

    def grids(self, clip: ClipShape) -> Grids:
        """Tokens behind the embedding, and those of the last stage; ValueError where the patch does not divide."""
        embedded = clip.grid(self.patch_cube)
        return Grids(embedded, self.stage_grids(embedded)[-1])

    def stage_grids(self, embedded: Grid) -> tuple[Grid, ...]:
        """The grid in each stage: half the one before in space, rounded up."""
        grids = [embedded]
        for _ in self.stages:
            grids.append(Grid(embedded.t, -(-grids[-1].h // 2), -(-grids[-1].w // 2)))
        return tuple(grids)

    def assemble(self, clip: ClipShape, *, final_norm: bool, masked: bool = False) -> Swin:
        """The module; its linear maps as PyTorch draws them."""
        return Swin(self, clip, final_norm=final_norm, masked=masked)

    @classmethod
    def tiny(cls) -> SwinSpec:
        """0.03 M parameters, three stages; a cube is 2 x 16 x 16."""
        return cls(width=16, depth=4, heads=2, stages=(SwinStage(start=2), SwinStage(start=3)), window=(2, 3, 3))

    def stretched(self, state: State, before: ClipShape | None, after: ClipShape) -> Stretched:  # noqa: ARG002
        """Nothing changes: tables belong to windows, and these keep their size. See `with_window`."""
        return Stretched(self, state, "")

    def with_window(self, state: State, window: Step) -> Stretched:
        """The same for windows of a different size, such as 16 x 7 x 7 for clips of 32 frames: tables are stretched."""
        if window == self.window:
            return Stretched(self, state, "")
        tables = {name: table for name, table in state.items() if name.endswith(TABLE)}
        new = {name: stretch_table(table, self.window, window) for name, table in tables.items()}
        before, after = (" x ".join(map(str, sides)) for sides in (self.window, window))
        note = f"tables of relative positions are stretched from windows of {before} tokens to {after}"
        return Stretched(replace(self, window=window), {**state, **new}, note)

    @model_validator(mode="after")
    def _stages_fit(self) -> SwinSpec:
        starts = [0, *(stage.start for stage in self.stages), self.depth]
        if any(start >= end for start, end in pairwise(starts)):
            raise ValueError(
                f"stages start at blocks {starts[:-1]}; they must rise and be below the depth {self.depth}"
            )
        for width, heads in zip(self.stage_widths, self.stage_heads, strict=True):
            if width % heads:
                raise ValueError(f"width {width} of a stage is not a multiple of its heads {heads}")
        return self


def _stages(*blocks: int) -> tuple[SwinStage, ...]:
    return tuple(SwinStage(start=sum(blocks[: stage + 1])) for stage in range(len(blocks) - 1))


SWIN_T: Final = SwinSpec()
"""28 M parameters, 88 GFLOPs with 32 frames of 224 (drop path 0.1)."""
SWIN_S: Final = SwinSpec(depth=24, stages=_stages(2, 2, 18, 2))
"""50 M parameters, 166 GFLOPs (drop path 0.1)."""
SWIN_B: Final = SwinSpec(width=128, depth=24, heads=4, stages=_stages(2, 2, 18, 2))
"""88 M parameters, 282 GFLOPs (drop path 0.3; 0.4 and windows of 16 x 7 x 7 for Something-Something V2)."""
SWIN_L: Final = SwinSpec(width=192, depth=24, heads=6, stages=_stages(2, 2, 18, 2))
"""197 M parameters, 604 GFLOPs (drop path 0.4)."""


class Swin(Encoder):
    """Video Swin (arXiv:2106.13230).

    `grid` has the tokens behind the patch embedding, `out_grid` those that come out, `out_width` wide; `spec.cube` is
    of the latter. With `masked` it has a `mask_token` for what is hidden. Names that training relies on: `patch_embed`,
    `mask_token`, `stages.{i}.blocks.{i}`, `stages.{i}.merge`, `norm` (empty without `final_norm`).
    """

    spec: SwinSpec

    def __init__(self, spec: SwinSpec, clip: ClipShape, *, final_norm: bool, masked: bool = False) -> None:
        super().__init__()
        self.spec = spec
        self.clip = clip
        self.grid, self.out_grid = spec.grids(clip)
        self.out_width, self.out_heads = spec.out_width, spec.out_heads
        self.layers = spec.depth + len(spec.stages) + 1
        self.normalise = Normalise(spec.colours)
        self.patch_embed = PatchEmbed(spec.width, spec.patch_cube, normed=spec.patch_norm, norm_eps=spec.norm_eps)
        self.mask_token = _mask_token(spec.width) if masked else None
        self.stages = nn.ModuleList(_modules(spec))
        self.norm = nn.LayerNorm(self.out_width, eps=spec.norm_eps) if final_norm else nn.Identity()
        self.windows = nn.ModuleList(_windows(spec, self.grid, spec.window_rule))
        self._windows_of_others: dict[tuple[Grid, WindowRule, torch.device], list[GridWindows]] = {}

    def forward(
        self,
        video: Num[Tensor, "B C T H W"],
        seen: Int[Tensor, "B V"] | None = None,
        *,
        hidden: Bool[Tensor, "B t h w"] | None = None,
    ) -> Float[Tensor, "B N {self.out_width}"]:
        """Tokens of `out_grid` in raster order. No token can be dropped (`seen`); `hidden` as in `stage_tokens`."""
        assert seen is None, "windows need the whole grid"
        self.check(video)
        out: Tensor = self.norm(self.stage_tokens(video, hidden=hidden)[-1])
        return out

    def stage_tokens(
        self,
        video: Num[Tensor, "B C T H W"],
        *,
        hidden: Bool[Tensor, "B t h w"] | None = None,
        embed: PatchEmbed | None = None,
    ) -> tuple[Float[Tensor, "B _ _"], ...]:
        """Tokens that each stage gives before merging, in raster order of `spec.stage_grids`, without the final norm.

        Videos of any size: what cubes, windows or merging do not divide is padded. An image is a video of one frame;
        `embed` is then its own embedding, with a cube of one frame. Where `hidden` is True the embedded tokens are the
        mask token instead; it may be in the grid behind the embedding or in any coarser one whose sides divide that,
        such as `out_grid`, or BEVT's cells of 16 pixels.
        """
        embed = self.patch_embed if embed is None else embed
        pixels = self.normalise.video(video)
        grid, tokens = embed.grid_of(pixels), embed(pixels)
        if hidden is not None:
            assert self.mask_token is not None
            tokens = torch.where(cells_to_tokens(hidden, grid).unsqueeze(-1), self.mask_token.to(tokens.dtype), tokens)
        recomputed = recomputed_blocks(self.spec.checkpointing, self.spec.depth) if self.training else 0
        found = []
        windows = self._windows(grid, embed, tokens.device)
        for stage, places in zip(cast("list[StageBlocks]", self.stages), windows, strict=True):
            for number, block in enumerate(stage.blocks):
                run = partial(block, partition=places.partition(number))
                tokens = recompute(run, tokens) if recomputed > 0 else run(tokens)
                recomputed -= 1
            found.append(tokens)
            if stage.merge is not None:
                tokens = stage.merge(tokens, places.grid)
        return tuple(found)

    def layer_of(self, name: str) -> int:
        """The embedding with the mask token is 0; then blocks and mergings in order; the final norm goes with the last.

        So Swin-B has 28 layers below a head, as BEVT is fine-tuned (arXiv:2112.01529; its released config).
        """
        part, _, rest = name.partition(".")
        if part == "norm":
            return self.layers - 1
        if part != "stages":
            return 0
        stage, kind, number = rest.split(".")[:3]
        blocks = self.spec.stage_blocks
        before = sum(blocks[: int(stage)]) + int(stage)  # each stage below ends in a merging
        return before + (int(number) if kind == "blocks" else blocks[int(stage)]) + 1

    def not_decayed(self) -> set[str]:
        """Tables of relative positions, as the authors do."""
        return {name for name, _ in self.named_parameters() if name.endswith(TABLE)}

    def stack(self) -> tuple[nn.Module, ...]:
        """Its blocks in order."""
        return tuple(block for stage in cast("list[StageBlocks]", self.stages) for block in stage.blocks)

    @staticmethod
    def init_linear(layer: nn.Module) -> None:
        """Normal with deviation 0.02, biases 0."""
        truncated_normal_(layer)

    def _windows(self, grid: Grid, embed: PatchEmbed, device: torch.device) -> list[GridWindows]:
        """Of each stage; those of a grid other than the model's are made when it first comes."""
        released_image = self.spec.window_rule == "released" and embed.cube.frames == 1
        rule: WindowRule = "released_image" if released_image else self.spec.window_rule
        if (grid, rule) == (self.grid, self.spec.window_rule):
            return cast("list[GridWindows]", list(self.windows))
        made = self._windows_of_others.get((grid, rule, device))
        if made is None:
            with torch.inference_mode(False):  # training may read them later
                made = [windows.to(device) for windows in _windows(self.spec, grid, rule)]
            self._windows_of_others[grid, rule, device] = made
        return made


def _windows(spec: SwinSpec, grid: Grid, rule: WindowRule) -> list[GridWindows]:
    return [GridWindows(stage, spec.window, rule) for stage in spec.stage_grids(grid)]


def _modules(spec: SwinSpec) -> list[StageBlocks]:
    rates = iter(drop_path_rates(spec.drop_path, spec.depth))
    found: list[StageBlocks] = []
    for width, heads, blocks in zip(spec.stage_widths, spec.stage_heads, spec.stage_blocks, strict=True):
        made = [_block(spec, width, heads, drop_path=next(rates)) for _ in range(blocks)]
        is_last = len(found) == len(spec.stages)
        found.append(StageBlocks(made, None if is_last else PatchMerging(width, norm_eps=spec.norm_eps)))
    return found


def _block(spec: SwinSpec, width: int, heads: int, *, drop_path: float) -> WindowBlock:
    attention = WindowAttention(width, heads, spec.window)
    return WindowBlock(attention, mlp_ratio=spec.mlp_ratio, drop_path=drop_path, norm_eps=spec.norm_eps)


def _mask_token(width: int) -> nn.Parameter:
    token = nn.Parameter(torch.empty(1, 1, width))
    nn.init.trunc_normal_(token, std=0.02)
    return token
