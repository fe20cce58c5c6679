"""A tiny model and tiny videos to embed. Also a program, so that it can be killed.

python toy_embed.py SOURCE RUN OUT CLIPS SIGNAL: embeds, and sends itself the signal after so many clips.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import torch

from tubelet.inference.embed import embed as embedding
from tubelet.inference.embed.embed import Settings, Stopped, embed
from tubelet.inference.embed.windows import Windows
from tubelet.inference.progress import Quiet
from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.recipe import Data, PretrainRecipe
from tubelet.types import ClipShape
from tubelet.video.lists.manifest import read_manifest
from tubelet.video.sample import Sampler, Uniform
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.read import write_checkpoint

CLIP = ClipShape(frames=4, size=16)
SETTINGS = Settings(windows=Windows(seconds=0.4), batch=2, threads=2)
UNIT = 2
"""Videos a unit in these tests."""


def toy_run(folder: Path, *, seed: int = 0, sampler: Sampler = Uniform()) -> Path:
    """A run folder with a model of random weights."""
    model = MaskedAutoencoderSpec(
        encoder=ViTSpec(width=24, depth=1, heads=2, patch=8, tubelet=2), decoder=DecoderSpec(width=16, depth=1, heads=2)
    )
    recipe = PretrainRecipe(name="toy", clip=CLIP, data=Data(sampler=sampler), model=model)
    rng = torch.Generator().manual_seed(seed)
    state = model.build(CLIP, recipe.target).state_dict()
    drawn = {name: torch.randn(value.shape, generator=rng) * 0.3 for name, value in state.items()}
    write_checkpoint(Checkpoint(folder, "random", drawn, recipe), folder)
    return folder


def toy_videos(folder: Path, count: int = 7) -> Path:
    """Videos of 10, 13, 16, ... frames at 25 a second, of blocks that change all the time; no two alike."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        rng = np.random.default_rng(number)
        with av.open(str(folder / f"{number}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=25, options={"crf": "12", "preset": "ultrafast", "g": "8"})
            stream.width, stream.height, stream.pix_fmt = 32, 24 + 2 * number, "yuv420p"
            for _ in range(10 + 3 * number):
                blocks = rng.integers(0, 256, (8, 4, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
                picture = np.ascontiguousarray(blocks[: 24 + 2 * number])
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
    return folder


def damage(path: Path) -> Path:
    """Zero the second half of a file's pictures: its first windows can be read, its last ones cannot."""
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 4
    end = start - 8 + int.from_bytes(content[start - 8 : start - 4], "big")  # the size of a box stands before its name
    middle = start + (end - start) // 2
    content[middle:end] = bytes(end - middle)
    path.write_bytes(content)
    return path


class Notes(Quiet):
    """Keeps what is said, and counts; `act` is called with the number of clips so far."""

    def __init__(self, act: Callable[[int], None] | None = None) -> None:
        self.lines: list[str] = []
        self.begun: list[tuple[str, int, str]] = []
        self.done = self.clips = self.ended = 0
        self._act = act

    def begin(self, what: str, total: int, unit: str) -> None:
        self.begun.append((what, total, unit))

    def advance(self, done: int, clips: int) -> None:
        self.done += done
        self.clips += clips
        if self._act is not None and clips:
            self._act(self.clips)

    def say(self, line: str) -> None:
        self.lines.append(line)

    def end(self) -> None:
        self.ended += 1


def killer(after: int, signal: int) -> Callable[[int], None]:
    """Sends this process the signal once, as soon as so many clips are done."""
    sent: list[int] = []

    def act(clips: int) -> None:
        if clips >= after and not sent:
            sent.append(signal)
            os.kill(os.getpid(), signal)

    return act


def main() -> int:
    from tubelet.inference.model import load

    source, run, out = (Path(word) for word in sys.argv[1:4])
    embedding.VIDEOS_A_UNIT = UNIT  # type: ignore[misc]
    notes = Notes(killer(int(sys.argv[4]), int(sys.argv[5])))
    try:
        embed(load(run, device="cpu"), read_manifest(source, labelled=False), out, SETTINGS, notes)
    except Stopped as stop:
        print(stop)
        return 128 + stop.signal
    return 0


if __name__ == "__main__":
    sys.exit(main())
