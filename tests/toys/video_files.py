"""Tiny H.264 files for tests, encoded with PyAV: every frame carries its number as brightness."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

STEP = 6
"""Brightness of frame i is 20 + STEP * i (mod 200): what the codec loses is less than half a step."""


def level(index: int) -> int:
    return 20 + STEP * index % 200


def write_video(
    path: Path,
    frames: int = 24,
    *,
    size: tuple[int, int] = (64, 48),
    times: Sequence[int] | None = None,
    b_frames: int = 0,
    gop: int = 8,
    options: dict[str, str] | None = None,
) -> Path:
    """A clip of `size` (width, height) at 25 fps, or with a presentation time for each frame in 1/1000 s.

    The left half is darker by 20 where the frame is not flipped; frame numbers show as brightness.
    """
    width, height = size
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "12", "preset": "ultrafast", "bf": str(b_frames), "threads": "1", **(options or {})}
        stream.codec_context.gop_size = gop
        stream.codec_context.max_b_frames = b_frames
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index in range(frames):
            picture = np.full((height, width, 3), level(index), dtype=np.uint8)
            picture[:, : width // 2] -= 20
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def numbers_of(frames: np.ndarray) -> list[float]:
    """Frame numbers (mod 200 / STEP) as seen in the brightness of the right half of [T,H,W,3]."""
    right = frames[:, :, frames.shape[2] * 5 // 8 : frames.shape[2] * 7 // 8]
    return [round(float(x), 2) for x in (right.reshape(len(frames), -1).mean(axis=1) - 20) / STEP]


def plainly(path: Path) -> list[Any]:
    """The reference: decode everything from the start, convert everything."""
    with av.open(str(path)) as container:
        stream: Any = container.streams.best("video")
        stream.codec_context.thread_count = 1  # what is made up for damaged parts depends on it
        decoded: Any = container.decode(stream)
        return [np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)) for frame in decoded]
