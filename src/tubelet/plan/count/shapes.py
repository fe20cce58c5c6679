"""What a training step computes for one clip, as shapes: what FLOPs, memory and kernel times are counted from."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from tubelet.masks import draw_mask
from tubelet.methods.predictor import MaskedPredictorSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.models.encoders import EncoderSpec
from tubelet.models.mvit.model import MViTSpec, block_shapes
from tubelet.models.vit import ViTSpec
from tubelet.nn.block import recomputed_blocks
from tubelet.nn.drop_path import drop_path_rates
from tubelet.plan.count.blocks import AnyBlock, Block, Linear
from tubelet.plan.count.pooled_blocks import pooled_blocks
from tubelet.recipe import FinetuneRecipe, PretrainRecipe
from tubelet.rng import generator
from tubelet.targets.unions import Target
from tubelet.types import ClipShape, Cube, Grid
from tubelet.weights.teachers import planned_target

COLOURS: Final = 3
UNKNOWN_CLASSES: Final = 400
"""Classes of a fine-tuning recipe that leaves them to its labels: as Kinetics-400. They hardly matter."""


class Recomputed(NamedTuple):
    """How many of the first blocks run twice, for they keep nothing but their input between forward and backward."""

    encoder: int = 0
    decoder: int = 0


@dataclass(frozen=True)
class Aim:
    """What a masked model predicts of a clip: `wanted` tokens, each of which stands for a cube."""

    target: Target
    clip: ClipShape
    cube: Cube
    wanted: int

    def peak_bytes(self, clips: int, *, on_cpu: bool) -> int:
        """There at once while targets of so many clips are made, the targets among them."""
        rows = clips * self.wanted
        return self.target.peak_bytes(self.clip, self.cube, rows=rows, clips=clips, on_cpu=on_cpu)


@dataclass(frozen=True)
class Layout:
    """Shapes of all matrix products for one clip. In fine-tuning `wanted` is 0 and there is no decoder.

    A masked predictor has no decoder either: its encoder has all tokens, in `seen`, and its head the `wanted` ones.
    Tokens of `grid` are embedded, from `read` numbers of the clip; those of `out_grid` come out of the encoder.
    `normed` are the rows of the norm before the head, `aim` is None in fine-tuning.
    """

    grid: Grid
    out_grid: Grid
    seen: int
    wanted: int
    embed: Linear
    read: int
    encoder: tuple[AnyBlock, ...]
    recomputed: Recomputed
    narrow: Linear | None
    decoder: tuple[AnyBlock, ...]
    normed: int
    head: Linear
    clip_bytes: int
    aim: Aim | None = None

    @property
    def blocks(self) -> Recomputed:
        """All blocks: as many as can be recomputed."""
        return Recomputed(len(self.encoder), len(self.decoder))


def layout(recipe: PretrainRecipe | FinetuneRecipe, target: Target | None = None) -> Layout:
    """Shapes of a recipe; ValueError where cube, clip and mask do not fit.

    Counts of tokens are those of one mask drawn from the rules. `target` is that of the recipe where somebody has it
    already; without it the file of a teacher is read.
    """
    encoder = recipe.model.encoder
    if isinstance(recipe, FinetuneRecipe):
        whole = _whole(encoder, recipe.clip)
        return replace(whole, head=whole.head._replace(rows=1, outputs=recipe.classes or UNKNOWN_CLASSES))
    seen, wanted = counts(recipe)
    target = planned_target(recipe) if target is None else target
    outputs = target.width(encoder.cube)
    aim = Aim(target, recipe.clip, encoder.cube, wanted)
    if isinstance(recipe.model, MaskedPredictorSpec):
        whole = _whole(encoder, recipe.clip)
        head = whole.head._replace(rows=wanted, outputs=outputs)
        return replace(whole, wanted=wanted, normed=whole.head.rows, head=head, aim=aim)
    assert isinstance(encoder, ViTSpec)
    decoder = recipe.model.decoder
    grid = recipe.clip.grid(encoder.cube)
    embed = Linear(seen, _pixels(encoder), encoder.width, first=True)
    return Layout(
        grid=grid,
        out_grid=grid,
        seen=seen,
        wanted=wanted,
        embed=embed,
        read=embed.rows * embed.inputs,
        encoder=_encoder(encoder, seen),
        recomputed=Recomputed(_recomputed(encoder), _recomputed(decoder)),
        narrow=Linear(seen, encoder.width, decoder.width),
        decoder=_decoder(decoder, seen, wanted),
        normed=wanted,
        head=Linear(wanted, decoder.width, outputs),
        clip_bytes=_clip_bytes(recipe.clip),
        aim=aim,
    )


def _whole(encoder: EncoderSpec, clip: ClipShape) -> Layout:
    """An encoder that reads every token, and a head on each that comes out, as wide as those."""
    if isinstance(encoder, MViTSpec):
        blocks: tuple[AnyBlock, ...] = pooled_blocks(encoder, clip)
        grid, out_grid, width = (
            clip.grid(encoder.patch_cube),
            block_shapes(encoder, clip)[-1].pooling.q_grid,
            encoder.out_width,
        )
        pixels = COLOURS * math.prod(encoder.patch_kernel)
    else:
        assert isinstance(encoder, ViTSpec)
        grid = out_grid = clip.grid(encoder.cube)
        blocks, width, pixels = _encoder(encoder, grid.tokens), encoder.width, _pixels(encoder)
    assert isinstance(encoder, ViTSpec | MViTSpec)
    return Layout(
        grid=grid,
        out_grid=out_grid,
        seen=grid.tokens,
        wanted=0,
        embed=Linear(grid.tokens, pixels, encoder.width, first=True),
        read=_clip_bytes(clip),
        encoder=blocks,
        recomputed=Recomputed(recomputed_blocks(encoder.checkpointing, encoder.depth)),
        narrow=None,
        decoder=(),
        normed=0,
        head=Linear(out_grid.tokens, width, width),
        clip_bytes=_clip_bytes(clip),
    )


def _pixels(encoder: ViTSpec) -> int:
    return COLOURS * encoder.tubelet * encoder.patch * encoder.patch


def _clip_bytes(clip: ClipShape) -> int:
    return COLOURS * clip.frames * clip.size**2


def counts(recipe: PretrainRecipe) -> tuple[int, int]:
    """Tokens that the encoder sees and that the decoder predicts, of a clip."""
    grid = recipe.clip.grid(recipe.model.encoder.cube)
    mask = draw_mask(recipe, grid, generator(recipe.seed))
    return int((~mask.hidden).sum()), int(mask.decoded.sum())


def _recomputed(spec: ViTSpec | DecoderSpec) -> int:
    return recomputed_blocks(spec.checkpointing, spec.depth)


def _encoder(spec: ViTSpec, tokens: int) -> tuple[Block, ...]:
    rates = drop_path_rates(spec.drop_path, spec.depth)
    return tuple(replace(_block(spec, tokens, rows=tokens), dropped=rate > 0) for rate in rates)


def _decoder(spec: DecoderSpec, seen: int, wanted: int) -> tuple[Block, ...]:
    whole, last = _block(spec, seen + wanted, rows=seen + wanted), _block(spec, seen + wanted, rows=wanted)
    return (*(whole,) * (spec.depth - 1), last)


def _block(spec: ViTSpec | DecoderSpec, tokens: int, *, rows: int) -> Block:
    return Block(
        tokens=tokens,
        rows=rows,
        width=spec.width,
        hidden=int(spec.width * spec.mlp_ratio),
        heads=spec.heads,
        scaled=spec.layer_scale is not None,
    )
