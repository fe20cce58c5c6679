"""`transformers` with the weights of ours, for step.py and memory.py, and when two losses count as equal."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, Final

import torch

from tubelet.methods.autoencoder import MaskedAutoencoder, MaskedAutoencoderSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.recipe import PretrainRecipe
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.export.huggingface import to_huggingface

os.environ.setdefault("HF_HUB_OFFLINE", "1")
TOLERANCE: Final = {"fp32": 1e-5, "bf16": 1e-2}
"""Largest relative difference between the two losses."""


def peer(method: MaskedAutoencoder, attention: str, device: torch.device) -> Any:
    """`VideoMAEForPreTraining` with the weights of ours, through the folder that the export writes."""
    from transformers import VideoMAEForPreTraining

    decoder = method.decoder
    first: Any = decoder.blocks[0]
    spec = DecoderSpec(width=first.attention.width, depth=len(decoder.blocks), heads=first.attention.heads)
    model = MaskedAutoencoderSpec(encoder=method.encoder.spec, decoder=spec)
    recipe = PretrainRecipe(name="benchmark", clip=method.encoder.clip, model=model)
    with tempfile.TemporaryDirectory() as folder:
        to_huggingface(Checkpoint(Path(folder), "benchmark", method.state_dict(), recipe), Path(folder) / "peer")
        module: Any = VideoMAEForPreTraining.from_pretrained(Path(folder) / "peer", attn_implementation=attention)
    return module.to(device).train()


def check(losses: dict[str, float], tolerance: float) -> None:
    """Nothing is timed before the losses agree."""
    for name, loss in losses.items():
        difference = abs(loss - losses["tubelet"]) / losses["tubelet"]
        if not difference <= tolerance:
            raise SystemExit(f"losses differ: {name} {loss}, tubelet {losses['tubelet']} (relative {difference:.1e})")
