"""Tiny models under the authors' names, as their scripts save them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tubelet.methods.autoencoder import MaskedAutoencoder, MaskedAutoencoderSpec
from tubelet.methods.classifier import Classifier, ClassifierSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.rng import step_rng
from tubelet.targets.pixels import NormalisedPixels
from tubelet.types import ClipShape
from tubelet.weights.read import Hints
from tubelet.weights.tensors.rename import to_official
from tubelet.weights.videomae.names import FINETUNED, PRETRAINED

CLIP = ClipShape(frames=4, size=16)
ENCODER = ViTSpec(width=8, depth=2, heads=2, patch=8)
DECODER = DecoderSpec(width=6, depth=1, heads=2)
HINTS = Hints(heads=2, decoder_heads=2, frames=4, size=16)
NAMES = ("a", "b", "c")
ModuleT = TypeVar("ModuleT", bound=nn.Module)


def autoencoder(encoder: ViTSpec = ENCODER, decoder: DecoderSpec = DECODER) -> MaskedAutoencoder:
    with step_rng(1, 0):
        return random(MaskedAutoencoderSpec(encoder=encoder, decoder=decoder).build(CLIP, NormalisedPixels()))


def classifier(encoder: ViTSpec = ENCODER, *, classes: int = 3, **changes: Any) -> Classifier:
    with step_rng(2, 0):
        spec = ClassifierSpec.model_validate({"encoder": encoder, **changes})
        return random(spec.build(CLIP, classes))


def random(module: ModuleT) -> ModuleT:
    """No tensor is left at zero or one, where a mix-up would not be seen."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module.eval()


def theirs(model: nn.Module) -> dict[str, Tensor]:
    """Its tensors under the authors' names."""
    return to_official(model.state_dict(), FINETUNED if isinstance(model, Classifier) else PRETRAINED)


def saved(content: dict[str, Any], folder: Path, name: str = "checkpoint.pth") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(content, folder / name)
    return folder / name


def clips(count: int = 2, clip: ClipShape = CLIP) -> Tensor:
    made = torch.Generator().manual_seed(3)
    return torch.randint(256, (count, 3, clip.frames, clip.size, clip.size), generator=made, dtype=torch.uint8)
