"""Folders of VideoMAE from Hugging Face transformers.

`VideoMAEForPreTraining`, `VideoMAEForVideoClassification`, and the encoder alone, `VideoMAEModel`. transformers itself
is not needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from torch import Tensor

from tubelet.disk.tensors import State, in_float32
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.huggingface import config as configs
from tubelet.weights.huggingface import tensors
from tubelet.weights.tensors.files import OpenedWeights
from tubelet.weights.tensors.rename import Pairs, from_official
from tubelet.weights.videomae.recipe import sampling

_INNER_NORM: Final = f"{tensors.INNER}layernorm."


def matches(opened: OpenedWeights) -> bool:
    """Whether it is a folder whose `config.json` is that of a VideoMAE model."""
    return configs.type_of(opened.folder) == configs.MODEL_TYPE


def read(opened: OpenedWeights) -> Checkpoint:
    """Weights of a folder under our names, with the recipe of the model that its config describes.

    What the folder holds is told from its tensors: a masked autoencoder, a classifier, or an encoder alone. ValueError
    in one line where it is damaged, of another kind, or says what tubelet cannot build.
    """
    folder = opened.folder
    config = configs.read_config(folder)
    file, state = tensors.read_weights(folder)
    keys = tensors.zero_key_biases(state, file)
    state = tensors.one_spelling({name: tensor for name, tensor in state.items() if name not in keys})
    state, notes = in_float32(state)
    notes += configs.processor_notes(folder)
    if config.has_biases and tensors.all_biases_zero(state):
        notes += ("every bias of q and v is zero: some 5.x versions of transformers lose them when they save",)
    part = _classifier if "classifier.weight" in state else _autoencoder if "mask_token" in state else _encoder
    found = part(tensors.joined(state, config, file), config, folder, file)
    return replace(found, dropped=(*keys, *found.dropped), notes=(*notes, *found.notes))


def _classifier(state: State, config: configs.VideoMAEConfig, folder: Path, file: Path) -> Checkpoint:
    unused = _INNER_NORM if config.use_mean_pooling else "fc_norm."  # transformers has no such norm then
    renamed, dropped = _ours(state, tensors.FINETUNED, file, without=(unused,))
    classes = len(renamed["head.weight"])
    if classes < 2:
        raise ValueError(f"{file}: the classifier has one output only; tubelet builds classifiers of at least two")
    names, notes = configs.class_names(config, classes, folder)
    special = sampling(classes)[2]
    notes += (special,) if special else ()
    recipe = configs.finetune_recipe(config, folder, classes=classes)
    what = f"Hugging Face VideoMAEForVideoClassification, {classes} classes"
    return Checkpoint(file, what, renamed, recipe, names, dropped, notes)


def _autoencoder(state: State, config: configs.VideoMAEConfig, folder: Path, file: Path) -> Checkpoint:
    recipe = configs.pretrain_recipe(config, folder)
    if not config.use_mean_pooling:
        renamed, dropped = _ours(state, tensors.PRETRAINED, file, without=())
        return Checkpoint(file, "Hugging Face VideoMAEForPreTraining", renamed, recipe, None, dropped)
    unused = (_INNER_NORM, "decoder.", "encoder_to_decoder.", "mask_token")
    renamed, dropped = _ours(state, tensors.PRETRAINED, file, without=unused)
    note = (
        f"{configs.CONFIG} says use_mean_pooling true: no norm between encoder and decoder, so the decoder is left out"
    )
    return Checkpoint(file, "Hugging Face VideoMAEForPreTraining", renamed, recipe, None, dropped, (note,))


def _encoder(state: State, config: configs.VideoMAEConfig, folder: Path, file: Path) -> Checkpoint:
    prefix = tensors.INNER if any(name.startswith(tensors.INNER) for name in state) else ""
    pairs = tuple((prefix + theirs, ours) for theirs, ours in tensors.ENCODER)
    unused = (f"{prefix}layernorm.",) if config.use_mean_pooling else ()
    renamed, dropped = _ours(state, pairs, file, without=unused)
    recipe = configs.pretrain_recipe(config, folder)
    return Checkpoint(file, "Hugging Face VideoMAEModel, an encoder alone", renamed, recipe, None, dropped)


def _ours(
    state: Mapping[str, Tensor], pairs: Pairs, file: Path, *, without: tuple[str, ...]
) -> tuple[State, tuple[str, ...]]:
    """The strict rename, after leaving out what starts with one of `without`; and the names left out."""
    dropped = tuple(name for name in state if name.startswith(without)) if without else ()
    kept = {name: tensor for name, tensor in state.items() if name not in dropped}
    return from_official(kept, pairs, source=str(file)), dropped
