"""What a training step computes for one clip, as shapes: what FLOPs, memory and kernel times are counted from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from tubelet.methods.predictor import MaskedPredictorSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.models.mvit_spec import MViTSpec
from tubelet.models.vit import ViTSpec
from tubelet.nn.drop_path import drop_path_rates
from tubelet.nn.recompute import recomputed_blocks
from tubelet.recipe import FinetuneRecipe, PretrainRecipe
from tubelet.rng import generator
from tubelet.types import Grid
from tubelet.weights.targets import planned_target

UNKNOWN_CLASSES = 400
"""Classes of a fine-tuning recipe that leaves them to its labels: as Kinetics-400. They hardly matter."""


class Linear(NamedTuple):
    """`rows` vectors of a clip through a matrix. `first`: nothing before it learns, so its input has no gradient."""

    rows: int
    inputs: int
    outputs: int
    first: bool = False


@dataclass(frozen=True)
class Block:
    """A transformer block that reads `tokens` rows of a clip; only the last `rows` of them ask and go on.

    `scaled`: with layer scale. `dropped`: with a drop path.
    """

    tokens: int
    rows: int
    width: int
    hidden: int
    heads: int
    scaled: bool = False
    dropped: bool = False

    @property
    def linears(self) -> tuple[Linear, ...]:
        """As `tubelet.nn.block.Block` multiplies: one matrix for q, k, v, or two where few rows ask."""
        width = self.width
        asks = (Linear(self.rows, width, width), Linear(self.tokens, width, 2 * width))
        return (
            *((Linear(self.tokens, width, 3 * width),) if self.rows == self.tokens else asks),
            Linear(self.rows, width, width),
            Linear(self.rows, width, self.hidden),
            Linear(self.rows, self.hidden, width),
        )

    @property
    def recomputes_all(self) -> bool:
        """Whether recomputing reaches the last linear map: PyTorch stops once it has all that backward needs."""
        return self.scaled or self.dropped


class Recomputed(NamedTuple):
    """How many of the first blocks run twice, for they keep nothing but their input between forward and backward."""

    encoder: int = 0
    decoder: int = 0


@dataclass(frozen=True)
class Layout:
    """Shapes of all matrix products for one clip. In fine-tuning `wanted` is 0 and there is no decoder.

    A masked predictor has no decoder either: its encoder has all tokens, in `seen`, and its head the `wanted` ones.
    """

    grid: Grid
    seen: int
    wanted: int
    embed: Linear
    encoder: tuple[Block, ...]
    recomputed: Recomputed
    narrow: Linear | None
    decoder: tuple[Block, ...]
    head: Linear
    clip_bytes: int

    @property
    def blocks(self) -> Recomputed:
        """All blocks: as many as can be recomputed."""
        return Recomputed(len(self.encoder), len(self.decoder))


def layout(recipe: PretrainRecipe | FinetuneRecipe) -> Layout:
    """Shapes of a recipe; ValueError where cube, clip and mask do not fit.

    Counts of tokens are those of one mask drawn from the rules.
    """
    encoder = recipe.model.encoder
    if isinstance(encoder, MViTSpec):
        raise ValueError(
            f"{recipe.name}: tubelet plan cannot count an encoder of kind {encoder.kind} yet; "
            "measure a few steps of tubelet finetune instead"
        )
    grid = recipe.clip.grid(encoder.cube)
    pixels = 3 * encoder.tubelet * encoder.patch * encoder.patch
    clip_bytes = 3 * recipe.clip.frames * recipe.clip.size**2
    if isinstance(recipe, FinetuneRecipe):
        head = Linear(1, encoder.width, recipe.classes or UNKNOWN_CLASSES)
        return _all_tokens(encoder, grid, head=head, wanted=0, clip_bytes=clip_bytes)
    seen, wanted = counts(recipe)
    if isinstance(recipe.model, MaskedPredictorSpec):
        head = Linear(wanted, encoder.width, planned_target(recipe).width(encoder.cube))
        return _all_tokens(encoder, grid, head=head, wanted=wanted, clip_bytes=clip_bytes)
    decoder = recipe.model.decoder
    return Layout(
        grid=grid,
        seen=seen,
        wanted=wanted,
        embed=Linear(seen, pixels, encoder.width, first=True),
        encoder=_encoder(encoder, seen),
        recomputed=Recomputed(_recomputed(encoder), _recomputed(decoder)),
        narrow=Linear(seen, encoder.width, decoder.width),
        decoder=_decoder(decoder, seen, wanted),
        head=Linear(wanted, decoder.width, planned_target(recipe).width(encoder.cube)),
        clip_bytes=clip_bytes,
    )


def _all_tokens(encoder: ViTSpec, grid: Grid, *, head: Linear, wanted: int, clip_bytes: int) -> Layout:
    """An encoder that reads every token, and a head on it."""
    return Layout(
        grid=grid,
        seen=grid.tokens,
        wanted=wanted,
        embed=Linear(grid.tokens, 3 * encoder.tubelet * encoder.patch * encoder.patch, encoder.width, first=True),
        encoder=_encoder(encoder, grid.tokens),
        recomputed=Recomputed(_recomputed(encoder)),
        narrow=None,
        decoder=(),
        head=head,
        clip_bytes=clip_bytes,
    )


def counts(recipe: PretrainRecipe) -> tuple[int, int]:
    """Tokens that the encoder sees and that the decoder predicts, of a clip."""
    grid = recipe.clip.grid(recipe.model.encoder.cube)
    hidden = recipe.mask(grid, generator(recipe.seed))
    decoded = recipe.decode(grid, hidden, generator(recipe.seed))
    return int((~hidden).sum()), int(decoded.sum())


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
