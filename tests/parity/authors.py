"""The authors' models as ours, built from the metadata of a golden case: by the converter, or through a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from golden import Case
from tubelet.methods.autoencoder import MaskedAutoencoder, MaskedAutoencoderSpec
from tubelet.methods.classifier import Classifier, ClassifierSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.nn.pixels import Normalise
from tubelet.targets.pixels import NormalisedPixels, Pixels
from tubelet.types import ClipShape
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.read import Hints, read_model
from tubelet.weights.tensors.rename import Pairs, from_official, to_official
from tubelet.weights.videomae.names import FINETUNED, PRETRAINED

WAYS: Final = ["converter", "model", "module"]
"""By the converter into a model built from the metadata, or from a file that nests the weights so."""


def build_autoencoder(case: Case, way: str, folder: Path) -> MaskedAutoencoder:
    """In eval mode, with the authors' weights."""
    config = case.meta["config"]
    model = config["model"]
    if way != "converter":
        return through_a_file(case, way, folder).build_autoencoder()
    encoder = encoder_spec(model, prefix="encoder_")
    decoder = DecoderSpec(
        width=model["decoder_embed_dim"],
        depth=model["decoder_depth"],
        heads=model["decoder_num_heads"],
        mlp_ratio=model["mlp_ratio"],
        layer_scale=model["init_values"] or None,
        cosine_attention=encoder.cosine_attention,
    )
    target = NormalisedPixels() if config["engine"]["normlize_target"] else Pixels()
    method = MaskedAutoencoderSpec(encoder=encoder, decoder=decoder).build(clip_of(config), target)
    load_strict(method, case, PRETRAINED)
    return method


def build_classifier(case: Case, way: str, folder: Path) -> Classifier:
    """In eval mode, with the authors' weights."""
    model = case.meta["config"]["model"]
    if way != "converter":
        return through_a_file(case, way, folder).build_classifier()
    spec = ClassifierSpec(
        encoder=encoder_spec(model),
        pooling="mean" if model["use_mean_pooling"] else "first",
        init_scale=model["init_scale"],
    )
    built = spec.build(clip_of(case.meta["config"]), model["num_classes"])
    load_strict(built, case, FINETUNED)
    return built


def through_a_file(case: Case, container: str, folder: Path) -> Checkpoint:
    """Saved as the authors save it, and read with what its shapes do not tell."""
    config = case.meta["config"]
    model, clip = config["model"], clip_of(config)
    path = folder / f"{case.meta.get('case', 'case')}.pth"
    torch.save({container: case.weight, "epoch": 799}, path)
    heads, decoder_heads = model.get("encoder_num_heads", model.get("num_heads")), model.get("decoder_num_heads")
    return read_model(path, Hints(heads, decoder_heads, clip.frames, clip.size))


def encoder_spec(model: dict[str, Any], *, prefix: str = "") -> ViTSpec:
    assert model["qkv_bias"] is True
    assert model["qk_scale"] is None
    return ViTSpec(
        width=model[f"{prefix}embed_dim"],
        depth=model[f"{prefix}depth"],
        heads=model[f"{prefix}num_heads"],
        mlp_ratio=model["mlp_ratio"],
        patch=model["patch_size"],
        tubelet=model["tubelet_size"],
        layer_scale=model["init_values"] or None,
        learnable_positions=model["use_learnable_pos_emb"],
        cosine_attention=model.get("cos_attn", False),  # V2 only
    )


def clip_of(config: dict[str, Any]) -> ClipShape:
    """V1 pre-training has its frames beside the model's options."""
    model = config["model"]
    return ClipShape(frames=config["frames"] if "frames" in config else model["all_frames"], size=model["img_size"])


def load_strict(module: nn.Module, case: Case, pairs: Pairs) -> None:
    """Their weights under our names, nothing missing, nothing over."""
    module.load_state_dict(from_official(case.weight, pairs), strict=True)
    module.eval()


def gradients(module: nn.Module, pairs: Pairs) -> dict[str, Tensor]:
    """By the authors' names. They detach a learnable position table in forward; ours learns, so it is left out."""
    ours = {name: value.grad for name, value in module.named_parameters() if value.grad is not None}
    theirs = to_official(ours, pairs)
    return {name: torch.zeros(1) if name == "pos_embed" else gradient for name, gradient in theirs.items()}


def pixels_of(case: Case) -> Tensor:
    """The model takes pixels 0..255: theirs come normalised, so they are taken back, as floats."""
    return Normalise().inverse(case.input["videos"])
