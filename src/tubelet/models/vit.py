"""The plain video transformer: cubes, fixed positions, joint space-time attention."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, Num
from pydantic import Field, model_validator
from torch import Tensor, nn

from tubelet.nn.attention import Attention
from tubelet.nn.block import NORM_EPS, Block, Recomputing, recompute, recomputed_blocks
from tubelet.nn.constants import register_constants
from tubelet.nn.drop_path import drop_path_rates
from tubelet.nn.patch import CubeEmbed
from tubelet.nn.pixels import Normalise, all_cubes, take_cubes
from tubelet.nn.position import learnt, stretched_sinusoid, take_rows
from tubelet.spec import Spec
from tubelet.types import ClipShape, Cube, Grid


class ViTSpec(Spec):
    """Size and options of a `ViT`; the default is ViT-B/16 with tubelets of 2 frames (arXiv:2203.12602)."""

    kind: Literal["vit"] = "vit"
    width: int = Field(default=768, ge=2)
    depth: int = Field(default=12, ge=1)
    heads: int = Field(default=12, ge=1)
    mlp_ratio: float = Field(default=4.0, gt=0.0)
    patch: int = Field(default=16, ge=1, description="pixels down and across one cube")
    tubelet: int = Field(default=2, ge=1, description="frames of one cube")
    drop_path: float = Field(default=0.0, ge=0.0, lt=1.0, description="rate of the last block; the first has 0")
    layer_scale: float | None = Field(default=None, gt=0.0, description="first value of the branch scales; null = none")
    learnable_positions: bool = False
    positions: ClipShape | None = Field(
        default=None, description="clip that fixed positions were trained for; stretched to this one; null = this one"
    )
    cosine_attention: bool = Field(default=False, description="logits are cosines times a learnt factor")
    norm_eps: float = Field(default=NORM_EPS, gt=0.0)
    checkpointing: Recomputing = False

    @property
    def cube(self) -> Cube:
        return Cube(self.tubelet, self.patch, self.patch)

    @property
    def trained_grid(self) -> Grid | None:
        """Token grid that fixed positions were trained for, where it may be another than the model's."""
        return None if self.positions is None else self.positions.grid(self.cube)

    @model_validator(mode="after")
    def _heads_divide_width(self) -> ViTSpec:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class ViT(nn.Module):
    """Encoder of VideoMAE (arXiv:2203.12602, section 3.3). No class token.

    With `masked` it has a `mask_token`, which stands for what is hidden. Names that training relies on: `patch_embed`,
    `pos_embed`, `mask_token`, `blocks.{i}`, `norm` (empty without `final_norm`).
    """

    pos_embed: Tensor

    def __init__(self, spec: ViTSpec, clip: ClipShape, *, final_norm: bool, masked: bool = False) -> None:
        super().__init__()
        self.spec = spec
        self.clip = clip
        self.grid = self.out_grid = clip.grid(spec.cube)
        self.out_width, self.out_heads = spec.width, spec.heads
        self.normalise = Normalise()
        self.patch_embed = CubeEmbed(spec.width, spec.cube)
        if spec.learnable_positions:
            self.pos_embed = learnt(self.grid.tokens, spec.width)
        self.mask_token = _mask_token(spec.width) if masked else None
        register_constants(self)
        self.blocks = nn.ModuleList(_block(spec, rate) for rate in drop_path_rates(spec.drop_path, spec.depth))
        self.norm = nn.LayerNorm(spec.width, eps=spec.norm_eps) if final_norm else nn.Identity()

    def forward(
        self,
        video: Num[Tensor, "B C T H W"],
        seen: Int[Tensor, "B V"] | None = None,
        *,
        hidden: Bool[Tensor, "B t h w"] | None = None,
    ) -> Float[Tensor, "B _ {self.spec.width}"]:
        """Tokens of the seen cubes, or of all: the others are never copied, normalised or embedded.

        With `hidden` (and without `seen`) all tokens go through, and the mask token, with its position, is in the place
        of each that is True. `video` is uint8, or float in the same range 0..255. ValueError where it has another size
        than the model.
        """
        self._check(video)
        if seen is None:
            cubes, position = all_cubes(video, self.spec.cube), self.pos_embed
        else:
            cubes, position = take_cubes(video, seen, self.spec.cube), take_rows(self.pos_embed, seen)
        embedded = self.patch_embed(self.normalise(cubes))
        if hidden is not None:
            assert self.mask_token is not None
            embedded = torch.where(hidden.flatten(1).unsqueeze(2), self.mask_token.to(embedded.dtype), embedded)
        tokens = embedded + position
        recomputed = recomputed_blocks(self.spec.checkpointing, self.spec.depth) if self.training else 0
        for number, block in enumerate(self.blocks):
            tokens = recompute(block, tokens) if number < recomputed else block(tokens)
        out: Tensor = self.norm(tokens)
        return out

    def constants(self) -> dict[str, Tensor]:
        """The table of fixed positions, [1,N,D]; nothing where positions are learnt."""
        if self.spec.learnable_positions:
            return {}
        return {"pos_embed": stretched_sinusoid(self.grid, self.spec.width, trained=self.spec.trained_grid)}

    def _check(self, video: Tensor) -> None:
        wanted = (self.clip.frames, self.clip.size, self.clip.size)
        if tuple(video.shape[2:]) != wanted:
            raise ValueError(f"the model takes clips of [T,H,W] {wanted}, got {tuple(video.shape[2:])}")


def _mask_token(width: int) -> nn.Parameter:
    """[1,1,D], at first normal with deviation 0.02 (arXiv:2112.09133)."""
    token = nn.Parameter(torch.empty(1, 1, width))
    nn.init.trunc_normal_(token, std=0.02)
    return token


def _block(spec: ViTSpec, drop_path: float) -> Block:
    attention = Attention(spec.width, spec.heads, cosine=spec.cosine_attention)
    return Block(
        attention,
        mlp_ratio=spec.mlp_ratio,
        drop_path=drop_path,
        layer_scale=spec.layer_scale,
        norm_eps=spec.norm_eps,
    )
