"""Tiny labelled videos whose class is how bright they are, and a recipe that learns them in seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tubelet.methods.classifier import ClassifierSpec
from tubelet.models.vit import ViTSpec
from tubelet.nn.mixing import NO_MIXING
from tubelet.recipe import FinetuneRecipe, LabelledData, Optim, Run, Schedule, Views
from tubelet.types import ClipShape
from tubelet.video.augment.augment import Augment, RandomResizedCrop
from tubelet.video.sample import Segments

LEVELS = {"bright": 190, "dark": 60}
SIZE = (24, 32)


def write_video(path: Path, level: int, *, seed: int, frames: int = 8) -> None:
    """A file of smooth noise around a grey level."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(10))
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for _ in range(frames):
            noise = rng.integers(-40, 41, (SIZE[0] // 8, SIZE[1] // 8, 1)).repeat(8, 0).repeat(8, 1)
            image = np.broadcast_to((level + noise).clip(0, 255), (*SIZE, 3)).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        container.mux(stream.encode(None))


def labelled_folder(folder: Path, *, each: int, seed: int = 0) -> Path:
    """`folder/bright/*.mp4` and `folder/dark/*.mp4`: equal file names in both."""
    for row, (name, level) in enumerate(LEVELS.items()):
        for number in range(each):
            write_video(folder / name / f"{number}.mp4", level, seed=1000 * seed + 100 * row + number)
    return folder


def toy_recipe(**changes: object) -> FinetuneRecipe:
    """A few hundred weights' worth of ViT on clips of 4 frames of 16 x 16."""
    fields: dict[str, object] = {
        "name": "toy",
        "clip": ClipShape(frames=4, size=16),
        "data": LabelledData(
            sampler=Segments(), augment=Augment(crop=RandomResizedCrop(scale=(0.5, 1.0))), workers=0, views=2
        ),
        "model": ClassifierSpec(encoder=ViTSpec(width=32, depth=2, heads=2, patch=8, drop_path=0.1)),
        "mixing": NO_MIXING,
        "optim": Optim(lr=0.1, betas=(0.9, 0.999), layer_decay=0.9),
        "schedule": Schedule(epochs=10, warmup_epochs=1),
        "run": Run(batch_size=8, precision="fp32", device="cpu", save_every=4, log_every=1, threads=1),
        "views": Views(clips=2, crops=3),
    }
    return FinetuneRecipe.model_validate({**fields, **changes})


def tubelet(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it, in `folder`."""
    return subprocess.run(
        [sys.executable, "-m", "tubelet", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
