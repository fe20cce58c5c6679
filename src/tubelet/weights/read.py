"""The one entrance for models of every origin, and the way into a run folder of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from tubelet.data.class_names import names_text
from tubelet.disk.layout import CHECKPOINTS, CLASSES_FILE, MODEL_FILE, MODEL_FOLDER, RECIPE_FILE
from tubelet.disk.tensors import write_tensors
from tubelet.disk.write import is_disk_full, new_folder, write_text
from tubelet.masks import Tube
from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.methods.classifier import ClassifierSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.models.encoders import encoder_for
from tubelet.recipe import Data, EncoderRun, FinetuneRecipe, LabelledData, PretrainRecipe, Views, write_recipe
from tubelet.rng import step_rng
from tubelet.spec import explain
from tubelet.targets.pixels import NormalisedPixels, Pixels
from tubelet.video.sample import Segments, Span, Strided
from tubelet.weights.imported import DECODER, Imported, encoder_state
from tubelet.weights.slowfast.recipe import multiscale_recipe
from tubelet.weights.slowfast.spec import is_multiscale
from tubelet.weights.source import read_source
from tubelet.weights.tensors.given import Given, Hints
from tubelet.weights.tensors.strict import check_fit
from tubelet.weights.videomae.shapes import decoder_spec, encoder_spec, trained_clip

__all__ = ["Hints", "read_model", "write_imported"]

SSV2_CLASSES: Final = 174
STRIDE: Final = 4
"""Frames from one frame of a clip to the next in all published runs on Kinetics."""


def read_model(path: Path, hints: Hints = Hints()) -> Imported:
    """Read a model of any origin: a run of ours, a released VideoMAE or VideoMAE V2 file, a Hugging Face folder.

    `path` is a run, model or checkpoint folder, or a file. `hints` are facts that its file does not hold; where it
    does, they must agree. Every tensor has been checked against the model. Nothing in a file is executed. ValueError in
    one line where it is missing, damaged, of another model, or wants to run code.
    """
    source = read_source(path)
    recipe: EncoderRun
    if source.recipe is not None:
        _check_hints(hints, source.recipe, source.file)
        recipe, notes = source.recipe, source.notes
    else:
        given = replace(source.given, hints=hints)
        found = list(source.notes)
        is_classifier = any(name.startswith(("head.", "fc_norm.")) for name in source.state)
        if is_multiscale(source.state):
            recipe = multiscale_recipe(source.state, given, found)
        elif is_classifier:
            recipe = _classifier(source.state, given, found)
        else:
            recipe = _autoencoder(source.state, given, found)
        notes = tuple(found)
    names = hints.names or (source.names if "head.bias" in source.state else None)
    imported = Imported(source.file, source.format, source.state, recipe, names, source.dropped, notes)
    _check_names(imported)
    _check_tensors(imported)
    return imported


def write_imported(imported: Imported, out: Path) -> Path:
    """Write the model as a finished run of ours, whole or not at all; returns its folder `out/model`.

    What stands at `out/model` is replaced. Classes without names get their numbers. ValueError where `out` holds
    checkpoints of a run, or cannot be written.
    """
    if (out / CHECKPOINTS).exists():
        raise ValueError(f"{out}: holds the checkpoints of a training run; choose another folder")
    names = imported.names
    if imported.has_head and names is None:
        names = tuple(str(label) for label in range(len(imported.state["head.bias"])))
    folder = out / MODEL_FOLDER
    try:
        with new_folder(folder) as temporary:
            write_tensors(imported.state, temporary / MODEL_FILE)
            write_recipe(imported.recipe, temporary / RECIPE_FILE)
            if names is not None:
                write_text(temporary / CLASSES_FILE, names_text(names))
    except OSError as error:
        reason = "no space left on the disk" if is_disk_full(error) else error.strerror or str(error)
        raise ValueError(f"{out}: cannot be written ({reason}); choose another folder") from error
    return folder


def _autoencoder(state: Mapping[str, Tensor], given: Given, notes: list[str]) -> PretrainRecipe:
    encoder = encoder_spec(state, given, notes)
    has_decoder = any(name.startswith(DECODER) for name in state)
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


def _classifier(state: Mapping[str, Tensor], given: Given, notes: list[str]) -> FinetuneRecipe:
    encoder = encoder_spec(state, given, notes)
    pooling = "mean" if "fc_norm.weight" in state else "first"
    classes = len(state["head.bias"]) if "head.bias" in state else None
    named = "SSV2" in (given.options.data_set or "")
    segments = named or classes == SSV2_CLASSES
    if segments:
        why = (
            "its options name Something-Something V2" if named else f"{classes} classes, as Something-Something V2 has"
        )
        notes.append(f"{why}: frames are spread over the whole video, 2 x 3 test views")
    sampler = Segments() if segments else Span(stride=given.options.stride or STRIDE)
    try:
        return FinetuneRecipe(
            name=given.file.stem,
            clip=trained_clip(state, given, notes),
            data=LabelledData(sampler=sampler),
            model=ClassifierSpec.model_validate({"encoder": encoder, "pooling": pooling}),
            classes=classes,
            views=Views(clips=2 if segments else 5, crops=3),
        )
    except ValidationError as error:
        raise ValueError(f"{given.file}: {explain(error, FinetuneRecipe)}") from error


def _check_hints(hints: Hints, recipe: EncoderRun, file: Path) -> None:
    """What the file says is not to be contradicted."""
    stated = {
        "heads": (hints.heads, recipe.model.encoder.heads),
        "frames it was trained with": (hints.frames, recipe.clip.frames),
        "size it was trained with": (hints.size, recipe.clip.size),
    }
    if isinstance(recipe, PretrainRecipe) and isinstance(recipe.model, MaskedAutoencoderSpec):
        stated["decoder heads"] = (hints.decoder_heads, recipe.model.decoder.heads)
    for what, (hint, known) in stated.items():
        if hint not in (None, known):
            raise ValueError(f"{file}: {what}: its recipe says {known}, not {hint}; leave the hint out")


def _check_names(imported: Imported) -> None:
    if imported.names is None:
        return
    bias = imported.state.get("head.bias")
    if bias is None:
        raise ValueError(f"{imported.file}: has no classes to be named ({imported.format})")
    if len(bias) != len(imported.names):
        raise ValueError(f"{imported.file}: has {len(bias)} classes, but {len(imported.names)} names are given")


def _check_tensors(imported: Imported) -> None:
    """Every tensor has its place and every place its tensor; ValueError as in `check_fit`. No memory is taken."""
    recipe, state, file = imported.recipe, imported.state, imported.file
    with step_rng(0, 0), torch.device("meta"):
        if isinstance(recipe, FinetuneRecipe) and imported.has_head:
            module: nn.Module = recipe.model.build(recipe.clip, _classes(imported))
        elif isinstance(recipe, PretrainRecipe) and (imported.has_decoder or imported.predicts):
            module = recipe.model.build(recipe.clip, imported.target)
        else:
            state = encoder_state(state)
            module = encoder_for(recipe.model.encoder, recipe.clip, state)
    check_fit(state, module.state_dict(), file)


def _classes(imported: Imported) -> int:
    bias = imported.state.get("head.bias")
    if bias is None:
        raise ValueError(f"{imported.file}: has head.weight but lacks head.bias: is it a part of a model only?")
    return len(bias)
