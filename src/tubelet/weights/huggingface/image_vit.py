"""Image ViTs of Hugging Face as encoders of clips of one frame, for runs to start from. transformers is not needed.

Names and fields are those of transformers 5.23. What has no place in our ViT is left out with a note (class, register
and distillation tokens, decoders, heads), or changes nothing (biases of keys, which softmax cancels); colours other
than ImageNet's are worked into the patch embedding, which is exact.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import torch
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError
from torch import Tensor

from tubelet.disk.tensors import State, in_float32
from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.nn.block import mlp_ratio
from tubelet.nn.pixels import Colours
from tubelet.recipe import Data, PretrainRecipe
from tubelet.spec import explain
from tubelet.types import ClipShape
from tubelet.video.sample import Strided
from tubelet.weights.checkpoint import POSITIONS, Checkpoint
from tubelet.weights.huggingface import tensors
from tubelet.weights.huggingface.config import CONFIG, read_json, type_of
from tubelet.weights.huggingface.image_models import colours_of
from tubelet.weights.tensors.files import OpenedWeights
from tubelet.weights.tensors.rename import Pairs, from_official

FITS: Final = frozenset({"vit", "vit_mae", "deit", "dinov2", "dinov2_with_registers"})
"""Each `model_type` that is a plain ViT: pre-norm blocks, exact GELU, positions added to the patches."""
OTHERS: Final = {
    "clip": "a norm in front of its blocks",
    "clip_vision_model": "a norm in front of its blocks",
    "dinov3_vit": "rotary positions",
}
"""Those that video runs cannot start from, for what our ViT does not have."""
_LEFT_OUT: Final = re.compile(
    r"embeddings\.(cls|distillation|mask|register)_tokens?|(pooler|classifier|cls_classifier|distillation_classifier"
    r"|decoder)\..*|encoder\.layer\.\d+\.attention\.attention\.key\.bias"
)
_BLOCK: Final[Pairs] = (
    *tensors.BLOCK,
    ("norm{}.{.}", "norm{}.{.}"),
    ("mlp.fc{}.{.}", "mlp.fc{}.{.}"),
    ("layer_scale1.lambda1", "scale1"),
    ("layer_scale2.lambda1", "scale2"),
)
PAIRS: Final[Pairs] = (
    ("embeddings.position_embeddings", POSITIONS),
    ("embeddings.patch_embeddings.projection.{.}", "encoder.patch_embed.{.}"),
    *((f"encoder.layer.{{}}.{theirs}", f"encoder.blocks.{{}}.{ours}") for theirs, ours in _BLOCK),
    ("layernorm.{.}", "encoder.norm.{.}"),
)


class ImageConfig(BaseModel):
    """What the encoder is built from in transformers, by its names there."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    image_size: PositiveInt = 224
    patch_size: PositiveInt = 16
    num_channels: PositiveInt = 3
    hidden_size: PositiveInt = 768
    num_hidden_layers: PositiveInt = 12
    num_attention_heads: PositiveInt = 12
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    use_swiglu_ffn: bool = False


def matches(opened: OpenedWeights) -> bool:
    """Whether it is a folder whose `config.json` is that of an image model that is known here."""
    kind = type_of(opened.folder)
    return kind in FITS or kind in OTHERS


def read(opened: OpenedWeights) -> Checkpoint:
    """The encoder. ValueError in one line where the folder is damaged, or its model is none that our ViT can be."""
    folder = opened.folder
    config = _config(folder)
    file, state = tensors.read_weights(folder)
    prefix = next((one for one in ("vit.", "deit.", "dinov2.", "dinov2_with_registers.") if one in _fronts(state)), "")
    state, notes = in_float32({name.removeprefix(prefix): tensor for name, tensor in state.items()})
    dropped = tuple(name for name in state if _LEFT_OUT.fullmatch(name))
    kept = {name: tensor for name, tensor in state.items() if name not in dropped}
    ours = from_official(tensors.joined(tensors.one_spelling(kept), None, file), PAIRS, source=str(file))
    _add_time(ours, file)
    notes += _without_other_rows(ours, config, file)
    notes += _in_our_colours(ours, colours_of(folder))
    what = f"Hugging Face image model {type_of(folder)}, an encoder alone"
    return Checkpoint(file, what, ours, _recipe(ours, config, folder), None, dropped, notes)


def _config(folder: Path) -> ImageConfig:
    path = folder / CONFIG
    fields: dict[str, Any] = read_json(path)
    kind = str(fields.get("model_type"))
    if kind in OTHERS:
        raise ValueError(
            f"{path}: {kind} has {OTHERS[kind]}, which our ViT lacks, so no run can start from it; image models that "
            f"fit: {', '.join(sorted(FITS))}; as a teacher it does (target=features)"
        )
    try:
        config = ImageConfig.model_validate(fields)
    except ValidationError as error:
        raise ValueError(f"{path}: {explain(error, ImageConfig)}") from error
    wanted = {"hidden_act": "gelu", "num_channels": 3, "use_swiglu_ffn": False}
    for name, value in wanted.items():
        found = getattr(config, name)
        if found != value:
            raise ValueError(f"{path}: {name} is {found!r}; tubelet builds {value!r} only")
    return config


def _fronts(state: State) -> set[str]:
    return {name.split(".")[0] + "." for name in state}


def _add_time(state: State, file: Path) -> None:
    """The patch embedding [D,3,p,p] as one of cubes of one frame, [D,3,1,p,p]."""
    weight = state.get("encoder.patch_embed.weight")
    if weight is None or weight.ndim != 4:
        shape = "missing" if weight is None else list(weight.shape)
        raise ValueError(f"{file}: the patch embedding is {shape}, not [width, 3, patch, patch] of an image model")
    state["encoder.patch_embed.weight"] = weight.unsqueeze(2)


def _without_other_rows(state: State, config: ImageConfig, file: Path) -> tuple[str, ...]:
    """Positions of the patches alone: rows of class and distillation token come before them."""
    places = (config.image_size // config.patch_size) ** 2
    table = state.get(POSITIONS)
    if table is None or table.ndim != 3 or table.shape[1] < places:
        shape = "missing" if table is None else list(table.shape)
        raise ValueError(f"{file}: the position table is {shape}; {CONFIG} says {places} patches")
    others = table.shape[1] - places
    state[POSITIONS] = table[:, others:]
    words = "class token" if others == 1 else f"{others} tokens before the patches"
    return (f"its {words} has no place in our ViT and is left out: the others attended to it",) if others else ()


def _in_our_colours(state: State, theirs: Colours, ours: Colours = Colours()) -> tuple[str, ...]:
    """The same function of pixels, behind our normalisation: (x s + m - m') / s' is linear in x."""
    if theirs == ours:
        return ()
    mean, std, own_mean, own_std = (
        torch.tensor(values, dtype=torch.float64) for values in (theirs.mean, theirs.std, ours.mean, ours.std)
    )
    weight = state["encoder.patch_embed.weight"].double()
    by_colour: Tensor = weight.sum((2, 3, 4))
    state["encoder.patch_embed.weight"] = (weight * (own_std / std).view(1, 3, 1, 1, 1)).float()
    shifted = state["encoder.patch_embed.bias"].double() + by_colour @ ((own_mean - mean) / std)
    state["encoder.patch_embed.bias"] = shifted.float()
    return (f"trained with colours of mean {list(theirs.mean)}, std {list(theirs.std)}: put into the patch embedding",)


def _recipe(state: State, config: ImageConfig, folder: Path) -> PretrainRecipe:
    hidden = state.get("encoder.blocks.0.mlp.fc1.weight")
    try:
        encoder = ViTSpec(
            width=config.hidden_size,
            depth=config.num_hidden_layers,
            heads=config.num_attention_heads,
            mlp_ratio=4.0 if hidden is None else mlp_ratio(config.hidden_size, len(hidden)),
            patch=config.patch_size,
            tubelet=1,
            norm_eps=config.layer_norm_eps,
            layer_scale=1.0 if "encoder.blocks.0.scale1" in state else None,
            learnable_positions=True,
        )
        return PretrainRecipe(
            name=folder.resolve().name,
            clip=ClipShape(frames=1, size=config.image_size),
            data=Data(sampler=Strided(stride=1)),
            model=MaskedAutoencoderSpec(encoder=encoder),
        )
    except ValidationError as error:
        raise ValueError(f"{folder / CONFIG}: {explain(error, PretrainRecipe).removeprefix('recipe: ')}") from error
