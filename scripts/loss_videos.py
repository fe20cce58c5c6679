"""What the runs of `scripts/losses.py` see: tiny videos and images, the same wherever they are made."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np

LEVELS: Final = {"bright": 180, "dark": 60, "grey": 120}
"""Class by class how bright a video is."""
FRAMES: Final = 24
SIZE: Final = (48, 64)
FRAMES_PER_SECOND: Final = 25


def write_material(folder: Path, stages: str) -> None:
    """videos/, by-class/, target/, images/; the lists one.txt, two.txt, a.csv, b.csv; `stages` as stages.yaml."""
    for number in range(12):
        _write_video(folder / "videos" / f"{number:02}.mp4", 60 + 10 * number, seed=number)
    for place, (name, level) in enumerate(LEVELS.items()):
        for number in range(4):
            seed = 100 + 10 * place + number
            _write_video(folder / "by-class" / name / f"{number}.mp4", level, seed=seed)
            _write_video(folder / "target" / (name if place else "new") / f"{number}.mp4", level, seed=seed + 100)
            _write_image(folder / "images" / name / f"{number}.png", level, seed=seed + 200)
    lists = {
        "one.txt": [f"videos/{number:02}.mp4" for number in range(0, 12, 2)],
        "two.txt": [f"videos/{number:02}.mp4" for number in range(1, 12, 2)],
        "a.csv": [f"by-class/{name}/{number}.mp4 {name}" for name in ("bright", "dark") for number in (0, 1)],
        "b.csv": [f"by-class/{name}/{number}.mp4 {name}" for name in ("dark", "grey") for number in (2, 3)],
    }
    for name, lines in lists.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines))
    (folder / "stages.yaml").write_text(stages)


def _write_video(path: Path, level: int, *, seed: int) -> None:
    """Blocks of noise around a brightness that move across the frame; without loss, so that no encoder matters."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = _picture(level, seed)
    with av.open(str(path), "w") as container:
        options = {"qp": "0", "preset": "ultrafast", "threads": "1"}
        stream: Any = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options=options)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.gop_size = 8
        for number in range(FRAMES):
            moved = np.roll(drawn, (number * (1 + seed % 3), number * (1 + seed % 2)), axis=(0, 1))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(moved), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _write_image(path: Path, level: int, *, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    encoder: Any = av.CodecContext.create("png", "w")
    encoder.height, encoder.width = SIZE
    encoder.pix_fmt, encoder.time_base = "rgb24", Fraction(1, FRAMES_PER_SECOND)
    frame = av.VideoFrame.from_ndarray(_picture(level, seed), format="rgb24")
    path.write_bytes(b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)]))


def _picture(level: int, seed: int) -> np.ndarray:
    """[H,W,3] bytes: blocks of 4 x 4 pixels, each of a colour near the level."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(-50, 51, (SIZE[0] // 4, SIZE[1] // 4, 3)).repeat(4, 0).repeat(4, 1)
    return (level + noise).clip(0, 255).astype(np.uint8)
