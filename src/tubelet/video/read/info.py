"""Facts of a video."""

from __future__ import annotations

from dataclasses import dataclass


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
