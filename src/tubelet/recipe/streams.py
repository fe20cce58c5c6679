"""The streams of a pre-training run, each with all that is said of it."""

from __future__ import annotations

from dataclasses import dataclass

from tubelet.masks import DecodeRule, LossOn, MaskRule
from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.recipe.data import Data, Stream
from tubelet.recipe.kinds import PretrainRecipe
from tubelet.rng import stream_seed
from tubelet.targets.unions import AnyTarget
from tubelet.types import VIDEO, ClipShape


@dataclass(frozen=True)
class StreamRecipe:
    """What a recipe says of one of its streams. `seed` is what its draws follow from: a different one in each stream.

    `batch_size` counts its videos in a step, over all devices.
    """

    name: str
    seed: int
    clip: ClipShape
    data: Data
    mask: MaskRule
    decode: DecodeRule
    loss_on: LossOn
    target: AnyTarget
    batch_size: int
    weight: float = 1.0


def streams_of(recipe: PretrainRecipe) -> tuple[StreamRecipe, ...]:
    """All streams, "video" first: what the recipe itself says. ValueError where a mask does not suit the model."""
    first = StreamRecipe(
        name=VIDEO,
        seed=recipe.seed,
        clip=recipe.clip,
        data=recipe.data,
        mask=recipe.mask,
        decode=recipe.decode,
        loss_on=recipe.loss_on,
        target=recipe.target,
        batch_size=recipe.run.batch_size,
    )
    return (first, *(_further(name, stream, recipe) for name, stream in recipe.streams.items()))


def _further(name: str, stream: Stream, recipe: PretrainRecipe) -> StreamRecipe:
    mask = stream.mask or recipe.mask
    if isinstance(recipe.model, MaskedAutoencoderSpec) and mask.uneven:
        raise ValueError(
            f"streams.{name}.mask {mask.kind} hides a different number of tokens in each clip, and a "
            "masked_autoencoder must see equally many: choose mask tube, random or frame, or model=masked_predictor"
        )
    return StreamRecipe(
        name=name,
        seed=stream_seed(recipe.seed, name),
        clip=stream.clip or recipe.clip,
        data=stream.data,
        mask=mask,
        decode=stream.decode or recipe.decode,
        loss_on=stream.loss_on or recipe.loss_on,
        target=stream.target or recipe.target,
        batch_size=stream.batch_size,
        weight=stream.weight,
    )
