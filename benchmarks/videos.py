"""Videos to measure with, made from a seed: moving textures with film grain, 10 s, 30 frames a second, by x264.

What is in them: a large picture of 1/f noise over which the view drifts and sways, four smaller ones that move across
it on their own, and grain of a few grey levels that is new in each frame, as cameras give it. They are encoded as x264
does by itself (preset medium, crf 23, a key frame every 250 frames, up to 3 B frames at places that it finds): a
340x256 file has 0.5 MB, a 1280x720 one 3.7 MB. Nothing about them is chosen for a loader; textures, speeds and places
are drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

FRAMES, RATE = 300, 30
GRAIN = 3.0
ORIGINAL = {"preset": "medium", "crf": "23", "threads": "1"}
ORIGINAL_GOP = 250


def write_original(path: Path, *, width: int, height: int, seed: int) -> Path:
    """One file as described above; one that is there already is kept."""
    if path.exists():
        return path
    half = path.with_name(f".{path.name}")
    with av.open(str(half), "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = dict(ORIGINAL)
        stream.codec_context.gop_size = ORIGINAL_GOP
        for picture in scene(width, height, seed=seed):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    half.replace(path)
    return path


def scene(width: int, height: int, *, seed: int) -> Iterator[np.ndarray]:
    """FRAMES pictures, uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    ground = texture(rng, 2 ** int(np.ceil(np.log2(2 * width))), roughness=1.2)
    things = [texture(rng, 256, roughness=1.0) for _ in range(4)]
    drift = rng.uniform(-2, 2, 2) * width / 340
    draws = rng.random((4, 5))
    for number in range(FRAMES):
        seconds = number / RATE
        sway = np.array([20 * np.sin(seconds), 10 * np.sin(1.7 * seconds)])
        left, top = (np.array(ground.shape[:2]) / 4 + drift * number / [2, 4] + sway).astype(int)
        rows, columns = (top + np.arange(height)) % len(ground), (left + np.arange(width)) % len(ground)
        picture = ground[rows[:, None], columns[None]].astype(np.float32)
        for thing, draw in zip(things, draws, strict=True):
            side = min(int(height * (0.15 + 0.2 * draw[0])), 256)
            x = int((width - side) * (0.5 + 0.5 * np.sin(seconds * (0.5 + 2 * draw[1]) + 6 * draw[2])))
            y = int((height - side) * (0.5 + 0.5 * np.sin(seconds * (0.5 + 2 * draw[3]) + 6 * draw[4])))
            picture[y : y + side, x : x + side] = thing[:side, :side]
        picture += rng.standard_normal((height, width, 1), dtype=np.float32) * GRAIN
        yield picture.clip(0, 255).astype(np.uint8)


def texture(rng: np.random.Generator, side: int, *, roughness: float) -> np.ndarray:
    """A picture whose spectrum falls with the frequency to the power `roughness`, uint8 [side, side, 3]."""
    frequency = np.fft.fftfreq(side)
    radius = np.hypot(frequency[:, None], frequency[None])
    radius[0, 0] = 1
    spectrum = (rng.standard_normal((3, side, side)) + 1j * rng.standard_normal((3, side, side))) / radius**roughness
    values = np.fft.ifft2(spectrum).real
    low, high = values.min((1, 2), keepdims=True), values.max((1, 2), keepdims=True)
    found: np.ndarray = ((values - low) / (high - low) * 255).astype(np.uint8).transpose(1, 2, 0)
    return found
