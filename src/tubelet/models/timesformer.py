"""TimeSformer (arXiv:2102.05095): a ViT over patches of single frames, with attention in time and space apart.

Tokens are in raster order (t, h, w) here as everywhere; the authors keep (h, w, t), which gives the same numbers.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int, Num
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from tubelet.disk.tensors import State
from tubelet.models.base import Encoder, EncoderSpec, Grids, Stretched, layer_in_stack
from tubelet.nn.attention import attend
from tubelet.nn.block import NORM_EPS, Mlp, Recomputing, recompute, recomputed_blocks
from tubelet.nn.drop_path import DropPath, drop_path_rates
from tubelet.nn.init import truncated_normal_
from tubelet.nn.patch import CubeEmbed
from tubelet.nn.pixels import Colours, Normalise, all_cubes, cells_to_tokens, grid_of
from tubelet.types import ClipShape, Cube, Grid

AttentionKind = Literal["divided", "joint", "space"]


class TimeSformerSpec(EncoderSpec):
    """Size and options of a `TimeSformer`; the default is the published one, ViT-B (arXiv:2102.05095)."""

    kind: Literal["timesformer"] = "timesformer"
    width: int = Field(default=768, ge=2)
    depth: int = Field(default=12, ge=1)
    heads: int = Field(default=12, ge=1)
    attention: AttentionKind = Field(
        default="divided", description="in time, then in space; or in both at once; or in space alone"
    )
    mlp_ratio: float = Field(default=4.0, gt=0.0)
    patch: int = Field(default=16, ge=1, description="pixels down and across one token; it has one frame")
    drop_path: float = Field(default=0.0, ge=0.0, lt=1.0, description="rate of the last block; the first has 0")
    norm_eps: float = Field(default=NORM_EPS, gt=0.0)
    colours: Colours = Colours(mean=(0.45, 0.45, 0.45), std=(0.225, 0.225, 0.225))
    checkpointing: Recomputing = False

    @property
    def cube(self) -> Cube:
        return Cube(1, self.patch, self.patch)

    @property
    def out_width(self) -> int:
        """The same in all blocks."""
        return self.width

    @property
    def out_heads(self) -> int:
        """The same in all blocks."""
        return self.heads

    @property
    def has_class_token(self) -> bool:
        """Classifiers read it."""
        return True

    @property
    def can_drop(self) -> bool:
        """Attention along time or within a frame needs whole rows; a joint one without them is a `vit`."""
        return False

    def facts(self) -> dict[str, Any]:
        """Its sizes, and how it attends."""
        return {**super().facts(), "mlp": int(self.width * self.mlp_ratio), "attention": self.attention}

    def grids(self, clip: ClipShape) -> Grids:
        """One grid from the embedding to the output; ValueError where the patch does not divide the clip."""
        return Grids(clip.grid(self.cube), clip.grid(self.cube))

    def assemble(self, clip: ClipShape, *, final_norm: bool, masked: bool = False) -> TimeSformer:
        """The module; its linear maps as PyTorch draws them."""
        return TimeSformer(self, clip, final_norm=final_norm, masked=masked)

    @classmethod
    def tiny(cls) -> TimeSformerSpec:
        """0.04 M parameters; a cube is 1 x 8 x 8."""
        return cls(width=32, depth=2, heads=2, patch=8)

    def stretched(self, state: State, before: ClipShape | None, after: ClipShape) -> Stretched:
        """Both tables take the nearest rows, as the authors do where a clip has a different size."""
        if before is None or before == after:
            return Stretched(self, state, "")
        old, new = before.grid(self.cube), after.grid(self.cube)
        changed = dict(state)
        if SPACE in state and state[SPACE].shape[1] == old.h * old.w + 1:
            changed[SPACE] = nearest_in_space(state[SPACE], (old.h, old.w), (new.h, new.w))
        if TIME in state and state[TIME].shape[1] == old.t:
            changed[TIME] = nearest_in_time(state[TIME], new.t)
        if all(changed[name] is state[name] for name in state):
            return Stretched(self, state, "")
        note = f"positions learnt for {before.words()} are interpolated to {after.words()}, each from the nearest place"
        return Stretched(self, changed, note)

    @model_validator(mode="after")
    def _heads_divide_width(self) -> TimeSformerSpec:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


TIMESFORMER_B: Final = TimeSformerSpec()
"""121 M parameters, 196 GFLOPs with 8 frames of 224 (drop path 0.1)."""
SPACE: Final = "pos_embed"
TIME: Final = "time_embed"


def nearest_in_space(
    table: Float[Tensor, "1 M D"], before: tuple[int, int], after: tuple[int, int]
) -> Float[Tensor, "1 N D"]:
    """Positions in a frame of a different size; the first row, of the class token, stays."""
    if before == after:
        return table
    frame = table[:, 1:].mT.unflatten(2, before)
    rows: Tensor = F.interpolate(frame, size=after, mode="nearest").flatten(2).mT
    return torch.cat([table[:, :1], rows], dim=1)


def nearest_in_time(table: Float[Tensor, "1 S D"], frames: int) -> Float[Tensor, "1 T D"]:
    """Positions in time for a different number of frames."""
    if table.shape[1] == frames:
        return table
    rows: Tensor = F.interpolate(table.mT, size=frames, mode="nearest")
    return rows.mT


class QkvAttention(nn.Module):
    """Multi-head self-attention over all tokens; q, k and v come from one map with a bias. Names: `qkv`, `proj`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.width, self.heads = width, heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        q, k, v = rearrange(self.qkv(tokens), "B N (three heads d) -> three B heads N d", three=3, heads=self.heads)
        mixed: Tensor = self.proj(attend(q, k, v).transpose(1, 2).flatten(2))
        return mixed


class FrameBlock(nn.Module):
    """`x + attention(norm1(x))`, then `x + mlp(norm2(x))`: of tokens that attend to one another all at once.

    Those are the tokens of a clip ("joint"), or of each frame with a class token of its own ("space").
    """

    def __init__(self, spec: TimeSformerSpec, *, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(spec.width, eps=spec.norm_eps)
        self.attention = QkvAttention(spec.width, spec.heads)
        self.norm2 = nn.LayerNorm(spec.width, eps=spec.norm_eps)
        self.mlp = Mlp(spec.width, int(spec.width * spec.mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Float[Tensor, "B M D"], frames: int) -> Float[Tensor, "B M D"]:
        """`frames` 1 takes all tokens at once, else they are those of as many frames, each behind its class token."""
        frame = "B (t n) D -> (B t) n D"
        attended = self.attention(rearrange(self.norm1(tokens), frame, t=frames))
        tokens = tokens + self.drop_path(rearrange(attended, "(B t) n D -> B (t n) D", t=frames))
        changed: Tensor = self.mlp(self.norm2(tokens))
        return torch.add(tokens, self.drop_path(changed))


class DividedBlock(nn.Module):
    """Attention in time among the tokens of a place, then in space among those of a frame, then an MLP (section 3).

    The class token takes no part in time; in space each frame has a copy of it, and what the copies learn is averaged.

    # authors: drop path draws for each place and each frame by itself; here, as everywhere, for a clip.
    """

    def __init__(self, spec: TimeSformerSpec, *, drop_path: float) -> None:
        super().__init__()
        self.temporal_norm = nn.LayerNorm(spec.width, eps=spec.norm_eps)
        self.temporal_attention = QkvAttention(spec.width, spec.heads)
        self.temporal_fc = nn.Linear(spec.width, spec.width)
        self.norm1 = nn.LayerNorm(spec.width, eps=spec.norm_eps)
        self.attention = QkvAttention(spec.width, spec.heads)
        self.norm2 = nn.LayerNorm(spec.width, eps=spec.norm_eps)
        self.mlp = Mlp(spec.width, int(spec.width * spec.mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Float[Tensor, "B M D"], frames: int) -> Float[Tensor, "B M D"]:
        """A class token, then those of `frames` frames."""
        first, patches = tokens[:, :1], tokens[:, 1:]
        rows = rearrange(self.temporal_norm(patches), "B (t n) D -> (B n) t D", t=frames)
        along = rearrange(self.temporal_attention(rows), "(B n) t D -> B (t n) D", B=tokens.shape[0])
        patches = patches + self.temporal_fc(self.drop_path(along))
        copies = first.unsqueeze(1).expand(-1, frames, -1, -1)
        frame = torch.cat([copies, patches.unflatten(1, (frames, -1))], dim=2)
        within = self.attention(self.norm1(frame).flatten(0, 1)).unflatten(0, (-1, frames))
        changed = torch.cat([within[:, :, :1].mean(1), within[:, :, 1:].flatten(1, 2)], dim=1)
        tokens = torch.cat([first, patches], dim=1) + self.drop_path(changed)
        widened: Tensor = self.mlp(self.norm2(tokens))
        return torch.add(tokens, self.drop_path(widened))


class TimeSformer(Encoder):
    """TimeSformer (arXiv:2102.05095).

    With `masked` it has a `mask_token` for what is hidden. Names that training relies on: `patch_embed`, `class_token`,
    `pos_embed`, `time_embed` (but for attention in space alone), `mask_token`, `blocks.{i}`, `norm` (empty without
    `final_norm`).
    """

    spec: TimeSformerSpec

    def __init__(self, spec: TimeSformerSpec, clip: ClipShape, *, final_norm: bool, masked: bool = False) -> None:
        super().__init__()
        self.spec = spec
        self.clip = clip
        self.grid, self.out_grid = spec.grids(clip)
        self.out_width, self.out_heads = spec.width, spec.heads
        self.layers = spec.depth + 1
        self.normalise = Normalise(spec.colours)
        self.patch_embed = CubeEmbed(spec.width, spec.cube)
        self.class_token = _vectors(1, spec.width)
        self.mask_token = _vectors(1, spec.width) if masked else None
        self.pos_embed = _vectors(self.grid.h * self.grid.w + 1, spec.width)
        in_time = spec.attention != "space"
        self.time_embed = nn.Parameter(torch.zeros(1, self.grid.t, spec.width)) if in_time else None
        block = DividedBlock if spec.attention == "divided" else FrameBlock
        self.blocks = nn.ModuleList(block(spec, drop_path=rate) for rate in drop_path_rates(spec.drop_path, spec.depth))
        self.norm = nn.LayerNorm(spec.width, eps=spec.norm_eps) if final_norm else nn.Identity()

    def forward(
        self,
        video: Num[Tensor, "B C T H W"],
        seen: Int[Tensor, "B V"] | None = None,
        *,
        hidden: Bool[Tensor, "B t h w"] | None = None,
    ) -> Float[Tensor, "B N {self.out_width}"]:
        """Tokens of `out_grid` in raster order. No token can be dropped (`seen`).

        Where `hidden` is True the embedded tokens are the mask token instead, at their positions; it may be in
        `out_grid` or in any coarser grid whose sides divide those of `out_grid`.
        """
        assert seen is None, "attention along time or within a frame needs whole rows"
        self.check(video)
        return self.with_class(video, hidden=hidden)[0]

    def tokens_and_class(self, video: Num[Tensor, "B C T H W"]) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B D"]]:
        """All tokens in raster order, and the class token."""
        self.check(video)
        return self.with_class(video)

    def with_class(
        self, video: Num[Tensor, "B C T H W"], *, hidden: Bool[Tensor, "B t h w"] | None = None
    ) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B D"]]:
        """The same for clips of any size that patches divide: positions are those of the nearest places.

        With attention in space alone each frame has a class token: their mean goes through the final norm.
        """
        grid = grid_of(video, self.spec.cube)
        tokens = self._embedded(video, grid, hidden)
        by_frame = self.spec.attention == "space"
        if by_frame:
            first = (self.class_token + self.pos_embed[:, :1]).expand(tokens.shape[0], grid.t, -1, -1)
            tokens = torch.cat([first, tokens.unflatten(1, (grid.t, -1))], dim=2).flatten(1, 2)
        else:
            first = self.class_token + self.pos_embed[:, :1]
            tokens = torch.cat([first.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        frames = 1 if self.spec.attention == "joint" else grid.t
        recomputed = recomputed_blocks(self.spec.checkpointing, self.spec.depth) if self.training else 0
        for number, block in enumerate(self.blocks):
            tokens = recompute(block, tokens, frames) if number < recomputed else block(tokens, frames)
        if by_frame:
            each = tokens.unflatten(1, (grid.t, -1))
            return self.norm(each[:, :, 1:].flatten(1, 2)), self.norm(each[:, :, 0].mean(1))
        normed = self.norm(tokens)
        return normed[:, 1:], normed[:, 0]

    def layer_of(self, name: str) -> int:
        """The embedding with positions and special tokens is 0, block i is i + 1, the final norm is on top."""
        return layer_in_stack(name, self.spec.depth)

    def not_decayed(self) -> set[str]:
        """Positions and the class token, as the authors do."""
        return {SPACE, "class_token"} | ({TIME} if self.time_embed is not None else set())

    def stack(self) -> tuple[nn.Module, ...]:
        """Its blocks in order."""
        return tuple(self.blocks)

    @staticmethod
    def init_linear(layer: nn.Module) -> None:
        """Normal with deviation 0.02, biases 0; what comes from attention in time is 0 at first."""
        truncated_normal_(layer)
        if isinstance(layer, DividedBlock):
            nn.init.zeros_(layer.temporal_fc.weight)
            nn.init.zeros_(layer.temporal_fc.bias)

    def _embedded(
        self, video: Num[Tensor, "B C T H W"], grid: Grid, hidden: Bool[Tensor, "B t h w"] | None
    ) -> Float[Tensor, "B N {self.out_width}"]:
        """Patches in raster order with their positions."""
        tokens = self.patch_embed(self.normalise(all_cubes(video, self.spec.cube)))
        if hidden is not None:
            assert self.mask_token is not None
            tokens = torch.where(cells_to_tokens(hidden, grid).unsqueeze(-1), self.mask_token.to(tokens.dtype), tokens)
        space = nearest_in_space(self.pos_embed, (self.grid.h, self.grid.w), (grid.h, grid.w))[:, 1:]
        positions = space.unsqueeze(1).expand(-1, grid.t, -1, -1)
        if self.time_embed is not None:
            positions = positions + nearest_in_time(self.time_embed, grid.t).unsqueeze(2)
        return torch.add(tokens, positions.flatten(1, 2))


def _vectors(count: int, width: int) -> nn.Parameter:
    vectors = nn.Parameter(torch.empty(1, count, width))
    nn.init.trunc_normal_(vectors, std=0.02)
    return vectors
