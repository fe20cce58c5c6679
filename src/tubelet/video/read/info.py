"""What an open video says of itself: its facts, and which of its frames are shown between two times."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf
from typing import Final

import numpy as np
from jaxtyping import Float64

_ROUNDING_SECONDS: Final = 1e-6


@dataclass(frozen=True)
class VideoInfo:
    """Facts of a file. `width` and `height` are those of the upright frames; `rotation` is what the file states, in
    degrees counter-clockwise; `fps` is the mean rate (0 for a single frame without a rate)."""

    frames: int
    fps: float
    duration_seconds: float
    width: int
    height: int
    rotation: int
    codec: str


def between(seconds: Float64[np.ndarray, " N"], start_seconds: float, end_seconds: float) -> tuple[int, int]:
    """The first frame shown from `start_seconds` on, and the first one from `end_seconds` on, by each frame's time."""
    first, stop = np.searchsorted(seconds, np.array([start_seconds, end_seconds]) - _ROUNDING_SECONDS)
    return int(first), int(stop)


def between_at_rate(rate: float, frames: int, start_seconds: float, end_seconds: float) -> tuple[int, int]:
    """`between` for `frames` frames at a constant `rate` a second: for decoders that tell no times without decoding."""
    first = ceil((start_seconds - _ROUNDING_SECONDS) * rate)
    stop = frames if end_seconds == inf else ceil((end_seconds - _ROUNDING_SECONDS) * rate)
    return first, min(stop, frames)
