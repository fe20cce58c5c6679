"""A model of ours as transformers' VideoMAE: its tensors, its config, and what cannot be said there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from tubelet.disk.tensors import State, write_tensors
from tubelet.disk.write import export_folder, write_text
from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.recipe import FinetuneRecipe, PretrainRecipe
from tubelet.spec import replace as changed
from tubelet.targets.pixels import NormalisedPixels, Pixels
from tubelet.types import Mask
from tubelet.weights.checkpoint import ENCODER, Checkpoint
from tubelet.weights.export.card import json_text, model_card, processors
from tubelet.weights.export.portable import noise
from tubelet.weights.huggingface import config as configs
from tubelet.weights.huggingface import tensors
from tubelet.weights.huggingface.config import MODEL_TYPE, NORM_EPS
from tubelet.weights.tensors.files import WEIGHTS
from tubelet.weights.tensors.rename import Pairs, to_official

ARCHITECTURES: Final[dict[str, tuple[str, Pairs]]] = {
    "classifier": ("VideoMAEForVideoClassification", tensors.FINETUNED),
    "masked_autoencoder": ("VideoMAEForPreTraining", tensors.PRETRAINED),
    "encoder": ("VideoMAEModel", tensors.ENCODER),
}
"""The class in transformers, and its names, of each part of a checkpoint that has one."""
_FOLDED: Final = {"scale1": "attention.proj", "scale2": "mlp.fc2"}
"""The last layer of a branch, which takes the branch's scale in."""


@dataclass(frozen=True)
class Exported:
    """What a folder of transformers holds. `config` is the JSON of its `config.json`."""

    architecture: str
    state: State
    config: dict[str, Any]
    notes: tuple[str, ...]


def exported(found: Checkpoint) -> Exported:
    """Tensors under transformers' names, and the config. ValueError where transformers has no such model."""
    refuse_what_is_missing(found)
    architecture, pairs = ARCHITECTURES[found.part]
    state = fold_layer_scale(found.state)
    left_out: tuple[str, ...] = ()
    if architecture == "VideoMAEModel":
        left_out = tuple(name for name in state if not name.startswith(ENCODER))
        state = {name: tensor for name, tensor in state.items() if name not in left_out}
    renamed = tensors.split(to_official(state, pairs, source=str(found.file)))
    notes = []
    if left_out:
        notes.append(f"{', '.join(left_out)}: not part of VideoMAEModel, left out")
    if len(state) + len(left_out) < len(found.state):
        notes.append("layer scale is multiplied into the last layer of each branch")
    return Exported(architecture, renamed, _config(found, architecture, renamed), tuple(notes))


def vit_of(found: Checkpoint) -> ViTSpec:
    """The plain encoder; ValueError where it is another."""
    encoder = found.recipe.model.encoder
    if not isinstance(encoder, ViTSpec):
        raise ValueError(f"{found.file}: VideoMAE in transformers has no {encoder.kind} encoder; try torch.export")
    return encoder


def refuse_what_is_missing(found: Checkpoint) -> None:
    """ValueError that names the first option of the model that VideoMAE in transformers does not have."""
    recipe = found.recipe
    if found.part not in ARCHITECTURES:
        part = found.part.replace("_", " ")
        raise ValueError(f"{found.file}: VideoMAE in transformers has no {part}; fine-tune it and export that")
    encoder = vit_of(found)
    decoder = found.decoder
    stretched = encoder.positions is not None and encoder.positions.grid(encoder.cube) != recipe.clip.grid(encoder.cube)
    reasons = {
        "cosine attention": encoder.cosine_attention or (decoder is not None and decoder.cosine_attention),
        "learnt positions": encoder.learnable_positions,
        "norm before its mean of tokens": isinstance(recipe, FinetuneRecipe) and recipe.model.pooling == "normed_mean",
        "positions stretched to another clip than the model was trained for (export it at its own size)": stretched,
        "an eps of the decoder's norms that differs from the encoder's": (
            decoder is not None and decoder.norm_eps != encoder.norm_eps
        ),
        "decoder for other targets than pixels": (
            decoder is not None
            and isinstance(recipe, PretrainRecipe)
            and not isinstance(recipe.target, NormalisedPixels | Pixels)
        ),
    }
    for reason, applies in reasons.items():
        if applies:
            raise ValueError(f"{found.file}: VideoMAE in transformers has no {reason}; try ONNX or torch.export")


def fold_layer_scale(state: State) -> State:
    """The same function without branch scales: each is multiplied into the rows of its branch's last layer."""
    out = dict(state)
    for name, scale in state.items():
        block, _, kind = name.rpartition(".")
        if kind in _FOLDED:
            del out[name]
            for part in ("weight", "bias"):
                layer = f"{block}.{_FOLDED[kind]}.{part}"
                out[layer] = out[layer] * (scale.unsqueeze(1) if part == "weight" else scale)
    return out


def eps_note(found: Checkpoint) -> tuple[str, ...]:
    """How far transformers' results are off for want of the right eps in one norm; nothing where the eps is the same.

    transformers fixes 1e-5 in `fc_norm` and in the decoder's last norm, where VideoMAE trains with 1e-6. Measured with
    our own model, once with each eps, on one clip of noise.
    """
    recipe = found.recipe
    if isinstance(recipe, FinetuneRecipe):
        if not found.has_head or recipe.model.pooling == "first" or recipe.model.norm_eps == NORM_EPS:
            return ()
        theirs: Any = changed(recipe, model=changed(recipe.model, norm_eps=NORM_EPS))
        what, eps, norm = "logits", recipe.model.norm_eps, "fc_norm"
    else:
        decoder = found.decoder
        if decoder is None or decoder.final_norm_eps == NORM_EPS:
            return ()
        model: Any = changed(recipe.model, decoder=changed(decoder, final_norm_eps=NORM_EPS))
        theirs = changed(recipe, model=model)
        what, eps, norm = "predicted pixels", decoder.final_norm_eps, "the decoder's last norm"
    ours, other = outputs(found), outputs(replace(found, recipe=theirs))
    difference = float((ours - other).abs().max() / ours.abs().max().clamp_min(1e-30))
    return (
        f"transformers fixes the eps of {norm} at {NORM_EPS:g}, this model has {eps:g}: "
        f"{what} there differ by {difference:.1e} of the largest (measured on one clip of noise)",
    )


@torch.inference_mode()
def outputs(found: Checkpoint) -> Float[Tensor, "..."]:
    """Logits, or predictions of every second cube, of one clip of noise."""
    recipe = found.recipe
    video = noise(recipe.clip)
    if isinstance(recipe, FinetuneRecipe):
        logits: Tensor = found.build_classifier()(video)
        return logits
    grid = recipe.clip.grid(recipe.model.encoder.cube)
    hidden = torch.arange(grid.tokens).remainder(2).bool().view(1, *grid)
    return found.build_autoencoder().predict(video, Mask(hidden, hidden).split())


def _config(found: Checkpoint, architecture: str, state: State) -> dict[str, Any]:
    recipe, encoder = found.recipe, vit_of(found)
    first = recipe.model.pooling == "first" if isinstance(recipe, FinetuneRecipe) else True
    has_norm = "layernorm.weight" in state if architecture == "VideoMAEModel" else first
    config: dict[str, Any] = {
        "architectures": [architecture],
        "model_type": MODEL_TYPE,
        "dtype": _dtype(state),
        "image_size": recipe.clip.size,
        "num_frames": recipe.clip.frames,
        "num_channels": 3,
        "patch_size": encoder.patch,
        "tubelet_size": encoder.tubelet,
        **_sizes(encoder),
        "hidden_act": "gelu",
        "layer_norm_eps": encoder.norm_eps,
        "qv_bias": True,
        "use_mean_pooling": not has_norm,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    if isinstance(recipe, PretrainRecipe) and found.decoder is not None:
        config |= {f"decoder_{name}": size for name, size in _sizes(found.decoder).items()}
        config["norm_pix_loss"] = isinstance(recipe.target, NormalisedPixels)
    if "classifier.bias" in state:
        names = found.names or tuple(f"LABEL_{number}" for number in range(len(state["classifier.bias"])))
        config["id2label"] = {str(number): name for number, name in enumerate(names)}
        config["label2id"] = {name: number for number, name in enumerate(names)}
    return config


def _sizes(spec: ViTSpec | DecoderSpec) -> dict[str, int]:
    return {
        "hidden_size": spec.width,
        "num_hidden_layers": spec.depth,
        "num_attention_heads": spec.heads,
        "intermediate_size": int(spec.width * spec.mlp_ratio),
    }


def _dtype(state: State) -> str:
    kinds = {tensor.dtype for tensor in state.values()}
    return str(kinds.pop()).removeprefix("torch.") if len(kinds) == 1 else "float32"


def to_huggingface(found: Checkpoint, out: Path) -> tuple[str, ...]:
    """Write a folder that transformers loads with `from_pretrained`, whole or not at all; notes for the user.

    A masked autoencoder, a classifier, or an encoder alone, by what the weights hold. What transformers cannot express
    is a ValueError, but for the eps of one norm (see `eps_note`).
    """
    out_going = exported(found)
    notes = eps_note(found)
    card = model_card(found, out_going.architecture, out_going.config)
    with export_folder(out) as folder:
        write_tensors(out_going.state, folder / WEIGHTS[0], metadata={"format": "pt"})
        write_text(folder / configs.CONFIG, json_text(out_going.config))
        for name, fields in processors(found.recipe.clip).items():
            write_text(folder / name, json_text(fields))
        write_text(folder / "README.md", card)
    return (*out_going.notes, *notes)
