"""The kernels of a multiscale transformer's step: a whole block, and the embedding of cubes that overlap."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tubelet.models.mvit.layers import OverlappingCubes, PoolingAttention, PoolingBlock
from tubelet.models.mvit.model import MViTSpec
from tubelet.nn.pixels import Normalise
from tubelet.plan.count.pooled_blocks import PooledBlock
from tubelet.plan.measure.kernels import PRODUCTS_A_NUMBER, Site, Trial, made_up_video
from tubelet.rng import step_rng
from tubelet.types import ClipShape


@dataclass(frozen=True)
class PooledBlockOf:
    """A block as it is, with weights that were drawn for it alone."""

    block: PooledBlock

    @property
    def cost(self) -> float:
        products = sum(one.flops for one in self.block.linears) + self.block.mixing_flops
        return products / 2 / PRODUCTS_A_NUMBER

    def build(self, site: Site, clips: int) -> Trial:
        block, widths = self.block, self.block.shape.widths
        with step_rng(0, 0):
            module = self.module().to(site.device)
        tokens = site.leaf(clips, block.came, widths.into, dtype=torch.float32)
        factor = torch.ones(clips, 1, 1, device=site.device, dtype=torch.float32)

        def forward() -> Tensor:
            found: Tensor = module(tokens)
            return found * factor if block.dropped else found

        return Trial(forward, (tokens, *module.parameters()))

    def module(self) -> PoolingBlock:
        """With weights from torch's default generator; it drops nothing, so that it draws nothing."""
        widths, pooling = self.block.shape.widths, self.block.shape.pooling
        attention = PoolingAttention(
            pooling, width_in=widths.into, width=widths.attention, heads=widths.heads, norm_eps=1e-6
        )
        ratio = (self.block.hidden + 0.5) / widths.attention  # is rounded down
        return PoolingBlock(attention, width=widths.out, mlp_ratio=ratio, drop_path=0.0, norm_eps=1e-6)


@dataclass(frozen=True)
class Overlapping:
    """Bytes of a clip to the tokens of a multiscale transformer; `masked`: some become the mask token."""

    spec: MViTSpec
    clip: ClipShape
    masked: bool

    @property
    def cost(self) -> float:
        tokens = self.clip.grid(self.spec.patch_cube).tokens
        kernel = torch.Size(self.spec.patch_kernel).numel()
        return 3.0 * tokens * kernel * self.spec.width / PRODUCTS_A_NUMBER

    def build(self, site: Site, clips: int) -> Trial:
        spec, video = self.spec, made_up_video(self.clip, site, clips)
        normalise = Normalise(spec.colours).to(site.device)
        with step_rng(0, 0):
            embed = OverlappingCubes(3, spec.width, spec.patch_kernel, spec.patch_stride, spec.patch_padding)
        embed = embed.to(site.device)
        tokens = self.clip.grid(spec.patch_cube).tokens
        is_hidden = (torch.arange(tokens, device=site.device) % 2 == 0).view(1, tokens, 1)
        mask_token = site.leaf(1, 1, spec.width)

        def forward() -> Tensor:
            found: Tensor = embed(normalise.video(video)).flatten(2).mT
            found = torch.where(is_hidden, mask_token.to(found.dtype), found) if self.masked else found
            return torch.cat([found[:, :1], found], dim=1) if spec.class_token else found

        return Trial(forward, (*embed.parameters(), mask_token))
