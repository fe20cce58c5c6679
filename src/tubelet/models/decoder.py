"""The light decoder of the masked autoencoder."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from tubelet.nn.attention import Attention
from tubelet.nn.block import NORM_EPS, Block, Recomputing, recompute, recomputed_blocks
from tubelet.nn.constants import register_constants
from tubelet.nn.init import mask_token_
from tubelet.nn.position import stretched_sinusoid, take_rows
from tubelet.spec import Spec
from tubelet.types import Grid, Split


class DecoderSpec(Spec):
    """Size of a `Decoder`; the default is the one of ViT-B (arXiv:2203.12602, table 1a)."""

    kind: Literal["decoder"] = "decoder"
    width: int = Field(default=384, ge=2)
    depth: int = Field(default=4, ge=1)
    heads: int = Field(default=6, ge=1)
    mlp_ratio: float = Field(default=4.0, gt=0.0)
    layer_scale: float | None = Field(default=None, gt=0.0, description="first value of the branch scales; null = none")
    cosine_attention: bool = Field(default=False, description="logits are cosines times a learnt factor")
    norm_eps: float = Field(default=NORM_EPS, gt=0.0, description="of the blocks")
    final_norm_eps: float = Field(default=NORM_EPS, gt=0.0, description="of the norm before the head")
    checkpointing: Recomputing = False

    @model_validator(mode="after")
    def _heads_divide_width(self) -> DecoderSpec:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class Decoder(nn.Module):
    """Seen tokens, then a mask token for each wanted place, through a few blocks; reads the wanted rows.

    The sequence is not put back into raster order (V1 `modeling_pretrain.py`): positions say where a token is.
    Names that training relies on: `mask_token`, `narrow`, `blocks.{i}`, `norm`, `head`.
    """

    pos_embed: Tensor

    def __init__(
        self, spec: DecoderSpec, grid: Grid, *, encoder_width: int, target_width: int, trained_grid: Grid | None = None
    ) -> None:
        super().__init__()
        self.spec = spec
        self.grid, self.trained_grid = grid, trained_grid
        self.narrow = nn.Linear(encoder_width, spec.width, bias=False)
        self.mask_token = nn.Parameter(torch.empty(1, 1, spec.width))
        mask_token_(self.mask_token)
        register_constants(self)
        self.blocks = nn.ModuleList(_block(spec) for _ in range(spec.depth))
        self.norm = nn.LayerNorm(spec.width, eps=spec.final_norm_eps)
        self.head = nn.Linear(spec.width, target_width)

    def forward(self, tokens: Float[Tensor, "B V D"], split: Split) -> Float[Tensor, "B K P"]:
        """Predictions of the wanted tokens. Rows that nobody wants end with the last block's keys and values."""
        x, wanted = self._sequence(tokens, split), split.wanted.shape[1]
        recomputed = recomputed_blocks(self.spec.checkpointing, self.spec.depth) if self.training else 0
        for number, block in enumerate(self.blocks[:-1]):
            x = recompute(block, x) if number < recomputed else block(x)
        last = self.blocks[len(self.blocks) - 1]
        assert isinstance(last, Block)
        x = recompute(last.tail, x, wanted) if self.spec.depth == recomputed else last.tail(x, wanted)
        predictions: Tensor = self.head(self.norm(x))
        return predictions

    def plain(self, tokens: Float[Tensor, "B V D"], split: Split) -> Float[Tensor, "B K P"]:
        """The same, with every row through every layer: what `forward` is tested against."""
        x = self._sequence(tokens, split)
        for block in self.blocks:
            x = block(x)
        predictions: Tensor = self.head(self.norm(x))[:, split.seen.shape[1] :]
        return predictions

    def constants(self) -> dict[str, Tensor]:
        """The table of positions, [1,N,d]."""
        return {"pos_embed": stretched_sinusoid(self.grid, self.spec.width, trained=self.trained_grid)}

    def not_decayed(self) -> set[str]:
        """Names of parameters that weight decay leaves alone, beside vectors and biases."""
        return {"mask_token"}

    def stack(self) -> tuple[nn.Module, ...]:
        """Its blocks in order."""
        return tuple(self.blocks)

    def _sequence(self, tokens: Float[Tensor, "B V D"], split: Split) -> Float[Tensor, "B N d"]:
        seen = self.narrow(tokens) + take_rows(self.pos_embed, split.seen)
        masked = self.mask_token + take_rows(self.pos_embed, split.wanted)
        return torch.cat([seen, masked], dim=1)


def _block(spec: DecoderSpec) -> Block:
    attention = Attention(spec.width, spec.heads, cosine=spec.cosine_attention)
    return Block(attention, mlp_ratio=spec.mlp_ratio, layer_scale=spec.layer_scale, norm_eps=spec.norm_eps)
