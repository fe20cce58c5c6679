"""The plain video transformer: cubes, fixed positions, joint space-time attention."""

from __future__ import annotations

from typing import Any, Final, Literal

import torch
from jaxtyping import Bool, Float, Int, Num
from pydantic import Field, model_validator
from torch import Tensor, nn

from tubelet.disk.tensors import State
from tubelet.models.base import Encoder, EncoderSpec, Grids, Stretched, layer_in_stack
from tubelet.nn.attention import Attention
from tubelet.nn.block import NORM_EPS, Block, Recomputing, recompute, recomputed_blocks
from tubelet.nn.constants import register_constants
from tubelet.nn.drop_path import drop_path_rates
from tubelet.nn.init import truncated_normal_
from tubelet.nn.patch import CubeEmbed
from tubelet.nn.pixels import Normalise, all_cubes, take_cubes
from tubelet.nn.position import learnt, stretch, stretched_sinusoid, take_rows
from tubelet.spec import replace
from tubelet.types import ClipShape, Cube, Grid


class ViTSpec(EncoderSpec):
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
    def out_width(self) -> int:
        """The same in all blocks."""
        return self.width

    @property
    def out_heads(self) -> int:
        """The same in all blocks."""
        return self.heads

    @property
    def has_class_token(self) -> bool:
        """None: classifiers read the mean of the tokens."""
        return False

    @property
    def can_drop(self) -> bool:
        """Each token is a cube by itself, and attention takes any number of them."""
        return True

    @property
    def position_kind(self) -> str:
        """Fixed ones are sines."""
        return "learnt" if self.learnable_positions else "fixed"

    @property
    def trained_clip(self) -> ClipShape | None:
        """`positions`, where they are fixed."""
        return None if self.learnable_positions else self.positions

    @property
    def trained_grid(self) -> Grid | None:
        """Token grid of `positions`."""
        return None if self.positions is None else self.positions.grid(self.cube)

    def facts(self) -> dict[str, Any]:
        """Its sizes, and whether it has the options of some published files."""
        return {
            **super().facts(),
            "mlp": int(self.width * self.mlp_ratio),
            "layer_scale": self.layer_scale is not None,
            "cosine_attention": self.cosine_attention,
        }

    def grids(self, clip: ClipShape) -> Grids:
        """One grid from the embedding to the output; ValueError where the cube does not divide the clip."""
        return Grids(clip.grid(self.cube), clip.grid(self.cube))

    def assemble(self, clip: ClipShape, *, final_norm: bool, masked: bool = False) -> ViT:
        """The module; its linear maps as PyTorch draws them."""
        return ViT(self, clip, final_norm=final_norm, masked=masked)

    @classmethod
    def tiny(cls) -> ViTSpec:
        """0.03 M parameters."""
        return cls(width=32, depth=2, heads=2, patch=8)

    def stretched(self, state: State, before: ClipShape | None, after: ClipShape) -> Stretched:
        """A learnt table is interpolated; fixed positions are interpolated from those of `positions`, else `before`."""
        if before is None or before == after:
            return Stretched(self, state, "")
        old, new = before.grid(self.cube), after.grid(self.cube)
        if not self.learnable_positions:
            trained = self.positions or before
            note = f"positions of {trained.words()} are interpolated to {after.words()}"
            return Stretched(replace(self, positions=trained), state, note)
        table = state.get("pos_embed")
        if table is None or table.shape[1] != old.tokens:
            return Stretched(self, state, "")
        changed = {**state, "pos_embed": stretch(table, old, new)}
        return Stretched(self, changed, f"positions learnt for {before.words()} are interpolated to {after.words()}")

    @model_validator(mode="after")
    def _heads_divide_width(self) -> ViTSpec:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


VIT_TI: Final = ViTSpec(width=192, depth=12, heads=3)
VIT_S: Final = ViTSpec(width=384, depth=12, heads=6)
VIT_B: Final = ViTSpec(width=768, depth=12, heads=12)
VIT_L: Final = ViTSpec(width=1024, depth=24, heads=16)
VIT_H: Final = ViTSpec(width=1280, depth=32, heads=16)
VIT_G: Final = ViTSpec(width=1408, depth=40, heads=16, mlp_ratio=48 / 11, patch=14)
"""48/11 of 1408 is 6144; 1011.6 M parameters (arXiv:2303.16727, table of the architecture)."""


class ViT(Encoder):
    """Encoder of VideoMAE (arXiv:2203.12602, section 3.3). No class token.

    With `masked` it has a `mask_token`, which stands for what is hidden. Names that training relies on: `patch_embed`,
    `pos_embed`, `mask_token`, `blocks.{i}`, `norm` (empty without `final_norm`).
    """

    spec: ViTSpec
    pos_embed: Tensor

    def __init__(self, spec: ViTSpec, clip: ClipShape, *, final_norm: bool, masked: bool = False) -> None:
        super().__init__()
        self.spec = spec
        self.clip = clip
        self.grid, self.out_grid = spec.grids(clip)
        self.out_width, self.out_heads = spec.width, spec.heads
        self.layers = spec.depth + 1
        self.normalise = Normalise()
        self.patch_embed = CubeEmbed(spec.width, spec.cube)
        if spec.learnable_positions:
            self.pos_embed = learnt(self.grid.tokens, spec.width)
        self.mask_token = learnt(1, spec.width) if masked else None
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
        self.check(video)
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

    def layer_of(self, name: str) -> int:
        """The embedding with positions and mask token is 0, block i is i + 1, the final norm is on top."""
        return layer_in_stack(name, self.spec.depth)

    def not_decayed(self) -> set[str]:
        """The table of positions, where it is learnt (V1 `modeling_finetune.py`)."""
        return {"pos_embed"} if self.spec.learnable_positions else set()

    def stack(self) -> tuple[nn.Module, ...]:
        """Its blocks in order."""
        return tuple(self.blocks)

    @staticmethod
    def init_linear(layer: nn.Module) -> None:
        """Normal with deviation 0.02, biases 0."""
        truncated_normal_(layer)


def _block(spec: ViTSpec, drop_path: float) -> Block:
    attention = Attention(spec.width, spec.heads, cosine=spec.cosine_attention)
    return Block(
        attention,
        mlp_ratio=spec.mlp_ratio,
        drop_path=drop_path,
        layer_scale=spec.layer_scale,
        norm_eps=spec.norm_eps,
    )
