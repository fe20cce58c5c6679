"""The multiscale video transformer: overlapping cubes, a grid that gets coarser, relative positions."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tubelet.models.mvit.spec import BlockShape, MViTSpec, block_shapes
from tubelet.nn.drop_path import drop_path_rates
from tubelet.nn.init import biased_normal_
from tubelet.nn.multiscale.attention import PoolingAttention
from tubelet.nn.multiscale.block import PoolingBlock
from tubelet.nn.patch import OverlappingCubes
from tubelet.nn.pixels import Normalise
from tubelet.rng import same_stream
from tubelet.types import ClipShape


class MViT(nn.Module):
    """MViTv2 (arXiv:2112.01526), the encoder of MaskFeat (arXiv:2112.09133).

    `grid` has the tokens behind the patch embedding, `out_grid` those that come out, `out_width` wide; `spec.cube` is
    of the latter. With `masked` it has a `mask_token` for what is hidden. Names that training relies on: `patch_embed`,
    `class_token`, `pos_embed_space`, `pos_embed_time`, `pos_embed_class`, `mask_token`, `blocks.{i}`, `norm` (empty
    without `final_norm`).
    """

    def __init__(self, spec: MViTSpec, clip: ClipShape, *, final_norm: bool = False, masked: bool = True) -> None:
        super().__init__()
        self.spec = spec
        self.clip = clip
        self.grid = spec.first_grid(clip)
        shapes = block_shapes(spec, clip)
        self.out_grid = shapes[-1].pooling.q_grid
        self.out_width, self.out_heads = spec.out_width, spec.out_heads
        self.normalise = Normalise(spec.colours)
        self.patch_embed = OverlappingCubes(3, spec.width, spec.patch_kernel, spec.patch_stride, spec.patch_padding)
        self._check_grid()
        self.class_token = _vectors(1, spec.width) if spec.class_token else None
        self.mask_token = _vectors(1, spec.width) if masked else None
        absolute = spec.absolute_positions
        self.pos_embed_space = _vectors(self.grid.h * self.grid.w, spec.width) if absolute else None
        self.pos_embed_time = _vectors(self.grid.t, spec.width) if absolute else None
        self.pos_embed_class = _vectors(1, spec.width) if absolute and spec.class_token else None
        rates = drop_path_rates(spec.drop_path, spec.depth)
        self.blocks = nn.ModuleList(_block(spec, shape, rate) for shape, rate in zip(shapes, rates, strict=True))
        self.norm = nn.LayerNorm(self.out_width, eps=spec.norm_eps) if final_norm else nn.Identity()
        self.apply(biased_normal_)

    def forward(
        self, video: Num[Tensor, "B C T H W"], hidden: Bool[Tensor, "B t h w"] | None = None
    ) -> Float[Tensor, "B N {self.out_width}"]:
        """Tokens of `out_grid` in raster order; the class token is left out (`with_class` keeps it).

        `video` is uint8, or float in the same range 0..255. Where `hidden` is True the embedded tokens are the mask
        token instead; it may be in `grid` or in any coarser grid whose sides divide those of `grid`, such as `out_grid`
        or MaskFeat's cells of 32 pixels. ValueError where video or mask have other sizes.
        """
        tokens = self.with_class(video, hidden)
        return tokens[:, 1:] if self.class_token is not None else tokens

    def with_class(
        self, video: Num[Tensor, "B C T H W"], hidden: Bool[Tensor, "B t h w"] | None = None
    ) -> Float[Tensor, "B M {self.out_width}"]:
        """The same behind the class token, where the model has one."""
        tokens = self._embed(video, hidden)
        for block in self.blocks:
            if self.spec.checkpointing and self.training:
                tokens = checkpoint(block, tokens, use_reentrant=False, context_fn=same_stream)
            else:
                tokens = block(tokens)
        out: Tensor = self.norm(tokens)
        return out

    def _embed(
        self, video: Num[Tensor, "B C T H W"], hidden: Bool[Tensor, "B t h w"] | None
    ) -> Float[Tensor, "B M {self.spec.width}"]:
        self._check(video)
        tokens: Tensor = self.patch_embed(self.normalise.video(video)).flatten(2).mT
        tokens = tokens.to(self.patch_embed.weight.dtype)  # tokens stay in float32 under autocast, as in a ViT
        if hidden is not None:
            assert self.mask_token is not None
            tokens = torch.where(self._upsampled(hidden).unsqueeze(-1), self.mask_token.to(tokens.dtype), tokens)
        if self.pos_embed_space is not None and self.pos_embed_time is not None:
            positions = self.pos_embed_time.unsqueeze(2) + self.pos_embed_space.unsqueeze(1)
            tokens = tokens + positions.flatten(1, 2)
        if self.class_token is None:
            return tokens
        first = self.class_token if self.pos_embed_class is None else self.class_token + self.pos_embed_class
        return torch.cat([first.to(tokens.dtype).expand(tokens.shape[0], -1, -1), tokens], dim=1)

    def _upsampled(self, hidden: Bool[Tensor, "B t h w"]) -> Bool[Tensor, "B N"]:
        """A mask of coarse cells, for the tokens of `grid`."""
        for axis, tokens in enumerate(self.grid, start=1):
            cells = hidden.shape[axis]
            if tokens % cells:
                raise ValueError(
                    f"a mask of {tuple(hidden.shape[1:])} cells does not divide {tuple(self.grid)} tokens; "
                    "choose another mask grid"
                )
            hidden = hidden.repeat_interleave(tokens // cells, dim=axis, output_size=tokens)
        return hidden.flatten(1)

    def _check(self, video: Tensor) -> None:
        wanted = (self.clip.frames, self.clip.size, self.clip.size)
        if tuple(video.shape[2:]) != wanted:
            raise ValueError(f"the model takes clips of [T,H,W] {wanted}, got {tuple(video.shape[2:])}")

    def _check_grid(self) -> None:
        spec, clip = self.spec, (self.clip.frames, self.clip.size, self.clip.size)
        sides = zip(clip, spec.patch_kernel, spec.patch_padding, spec.patch_stride, strict=True)
        made = tuple((side + 2 * padding - kernel) // stride + 1 for side, kernel, padding, stride in sides)
        if made != tuple(self.grid):
            raise ValueError(
                f"a patch kernel of {spec.patch_kernel} with padding {spec.patch_padding} makes {made} tokens, not one "
                f"for each step of {spec.patch_stride}; choose padding = kernel // 2"
            )


def _vectors(count: int, width: int) -> nn.Parameter:
    vectors = nn.Parameter(torch.empty(1, count, width))
    nn.init.trunc_normal_(vectors, std=0.02)
    return vectors


def _block(spec: MViTSpec, shape: BlockShape, drop_path: float) -> PoolingBlock:
    widths = shape.widths
    attention = PoolingAttention(
        shape.pooling, width_in=widths.into, width=widths.attention, heads=widths.heads, norm_eps=spec.norm_eps
    )
    return PoolingBlock(
        attention, width=widths.out, mlp_ratio=spec.mlp_ratio, drop_path=drop_path, norm_eps=spec.norm_eps
    )
