"""The recipe of a plain ViT that has none beside it: VideoMAE's pre-training, or a classifier; and how it is tested."""

from __future__ import annotations

from typing import Final

from pydantic import ValidationError

from tubelet.disk.tensors import State
from tubelet.masks import Tube
from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.methods.classifier import ClassifierSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.recipe import Data, EncoderRun, FinetuneRecipe, LabelledData, PretrainRecipe, Views
from tubelet.spec import explain
from tubelet.targets.pixels import NormalisedPixels, Pixels
from tubelet.types import ClipShape
from tubelet.video.sample import Segments, Span, Strided
from tubelet.weights.tensors.given import Given
from tubelet.weights.videomae.shapes import decoder_spec, encoder_spec, table_tokens, trained_clip

SSV2_CLASSES: Final = 174
STRIDE: Final = 4
"""Frames from one frame of a clip to the next in all published runs on Kinetics."""


def describe(state: State, given: Given, notes: list[str]) -> EncoderRun:
    """The model of these tensors, under our names; what was assumed is added to `notes`.

    ValueError where they make no such model, or do not tell enough of it.
    """
    is_classifier = any(name.startswith(("head.", "fc_norm.")) for name in state)
    return _classifier(state, given, notes) if is_classifier else _autoencoder(state, given, notes)


def clip_of(state: State, given: Given) -> ClipShape | None:
    """The clip that positions were trained for, as far as the file tells."""
    if table_tokens(state, given) is None and not (given.options.frames and given.options.size):
        return None
    return trained_clip(state, given, [])


def sampling(classes: int | None, *, stride: int = STRIDE, data_set: str = "") -> tuple[Segments | Span, Views, str]:
    """How the authors take frames and test views for a classifier of so many classes, and a note where it is special.

    Something-Something V2, by its name or its 174 classes: frames spread over the whole video, 2 x 3 views.
    """
    named = "SSV2" in data_set
    if not named and classes != SSV2_CLASSES:
        return Span(stride=stride), Views(clips=5, crops=3), ""
    why = "its options name Something-Something V2" if named else f"{classes} classes, as Something-Something V2 has"
    return Segments(), Views(clips=2, crops=3), f"{why}: frames are spread over the whole video, 2 x 3 test views"


def _autoencoder(state: State, given: Given, notes: list[str]) -> PretrainRecipe:
    encoder = encoder_spec(state, given, notes)
    has_decoder = any(name.startswith("decoder.") for name in state)
    decoder = decoder_spec(state, given, notes) if has_decoder else DecoderSpec()
    options = given.options
    return PretrainRecipe(
        name=given.file.stem,
        clip=trained_clip(state, given, notes),
        data=Data(sampler=Strided(stride=options.stride or STRIDE)),
        model=MaskedAutoencoderSpec(encoder=encoder, decoder=decoder),
        mask=Tube(ratio=options.mask_ratio or 0.9),
        target=Pixels() if options.normalised is False else NormalisedPixels(),
    )


def _classifier(state: State, given: Given, notes: list[str]) -> FinetuneRecipe:
    encoder, options = encoder_spec(state, given, notes), given.options
    pooling = "mean" if "fc_norm.weight" in state else "first"
    classes = len(state["head.bias"]) if "head.bias" in state else None
    sampler, views, note = sampling(classes, stride=options.stride or STRIDE, data_set=options.data_set or "")
    notes += [note] if note else []
    try:
        return FinetuneRecipe(
            name=given.file.stem,
            clip=trained_clip(state, given, notes),
            data=LabelledData(sampler=sampler),
            model=ClassifierSpec.model_validate({"encoder": encoder, "pooling": pooling}),
            classes=classes,
            views=views,
        )
    except ValidationError as error:
        raise ValueError(f"{given.file}: {explain(error, FinetuneRecipe)}") from error
