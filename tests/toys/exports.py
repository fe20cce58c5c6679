"""Tiny models to export, every parameter of them random, and clips for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.methods.classifier import ClassifierSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.recipe import FinetuneRecipe, PretrainRecipe
from tubelet.rng import step_rng
from tubelet.spec import replace
from tubelet.types import ClipShape
from tubelet.weights.checkpoint import Checkpoint

CLIP: Final = ClipShape(frames=4, size=16)
ENCODER: Final = ViTSpec(width=8, depth=2, heads=2, patch=8)
FILE: Final = Path("run/model")


def classifier(encoder: ViTSpec = ENCODER, *, names: tuple[str, ...] | None = None, **changes: Any) -> Checkpoint:
    model = ClassifierSpec.model_validate({"encoder": encoder, "norm_eps": 1e-5, **changes})
    recipe = FinetuneRecipe(name="waves", clip=CLIP, model=model, classes=3)
    with step_rng(1, 1):
        return Checkpoint(FILE, "run", _filled(model.build(CLIP, 3)), recipe, names)


def autoencoder(encoder: ViTSpec = ENCODER, **changes: Any) -> Checkpoint:
    decoder = replace(DecoderSpec(width=8, depth=1, heads=2, final_norm_eps=1e-5), **changes)
    model = MaskedAutoencoderSpec(encoder=encoder, decoder=decoder)
    recipe = PretrainRecipe(name="run", clip=CLIP, model=model)
    with step_rng(1, 2):
        return Checkpoint(FILE, "run", _filled(model.build(CLIP, recipe.target)), recipe)


def clips(clip: ClipShape, batch: int) -> Tensor:
    shape = (batch, 3, clip.frames, clip.size, clip.size)
    return torch.from_numpy(np.random.default_rng(batch).integers(0, 256, shape, dtype=np.uint8))


def _filled(module: nn.Module) -> dict[str, Tensor]:
    return {name: value + 0.5 * torch.randn(value.shape) for name, value in module.state_dict().items()}
