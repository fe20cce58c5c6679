"""A tiny pre-trained run to reconstruct with: its parts, its folder, a video, the command."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import torch
import typer
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from tubelet.cli.reconstruct import reconstruct as command
from tubelet.masks import Tube
from tubelet.methods.autoencoder import MaskedAutoencoder, MaskedAutoencoderSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.recipe import PretrainRecipe, write_recipe
from tubelet.targets.pixels import NormalisedPixels
from tubelet.targets.unions import Target, TargetSpec
from tubelet.types import ClipShape, Grid, Mask

CLIP = ClipShape(frames=4, size=16)
SPEC = MaskedAutoencoderSpec(
    encoder=ViTSpec(width=24, depth=1, heads=2, patch=4), decoder=DecoderSpec(width=12, depth=1, heads=2)
)


def write_video(path: Path, *, frames: int = 20, size: int = 32) -> Path:
    rows, columns = np.mgrid[0:size, 0:size]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for i in range(frames):
            picture = np.stack([rows * 7 + i, columns * 7, np.full_like(rows, 9 * i)], -1).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def write_run(out: Path, target: TargetSpec | None = None) -> Path:
    recipe = PretrainRecipe(
        name="tiny", clip=CLIP, model=SPEC, mask=Tube(ratio=0.75), target=target or NormalisedPixels()
    )
    (out / "model").mkdir(parents=True)
    write_recipe(recipe, out / "model" / "recipe.yaml")
    method = SPEC.build(CLIP, recipe.target)
    save_file(method.state_dict(), out / "model" / "model.safetensors")
    return out


def tube_mask() -> Mask:
    hidden = torch.from_numpy(Tube(ratio=0.75)(Grid(2, 4, 4), np.random.default_rng(0)))[None]
    return Mask(hidden, hidden)


def method_of(target: Target) -> MaskedAutoencoder:
    return SPEC.build(CLIP, target).eval()


def pixels_hidden(mask: Mask) -> np.ndarray:
    """[T,H,W] bool: which pixels lie in hidden cubes."""
    hidden = mask.hidden[0].numpy()
    return hidden.repeat(2, 0).repeat(4, 1).repeat(4, 2)


def invoke(*words: str) -> Result:
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, list(words))
