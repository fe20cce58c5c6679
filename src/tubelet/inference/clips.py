"""One clip of a video file, ready for a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

from tubelet.video.augment.crops import test_crops
from tubelet.video.read.file import BadVideo, open_video
from tubelet.video.read.pixels import reading_short_side
from tubelet.video.sample import Sampler, Uniform


def read_clip(
    path: str | Path,
    *,
    frames: int = 16,
    size: int = 224,
    start_seconds: float = 0.0,
    end_seconds: float | None = None,
    sampler: Sampler | None = None,
) -> UInt8[Tensor, "C T H W"]:
    """`frames` frames of a video, short side scaled to `size`, centre square: uint8 [3,T,size,size].

    The frames are spread evenly over `start_seconds`..`end_seconds` (the end of the video where not given); another
    `sampler`, such as `model.sampler`, chooses its middle clip from that part of the video instead.
    ValueError where the file cannot be read, or no frame is shown between these times.
    """
    rule = sampler or Uniform()
    try:
        with open_video(path) as video:
            shown = _shown(video.seconds, start_seconds, end_seconds)
            if not len(shown):
                asked = f"{start_seconds} s on" if end_seconds is None else f"{start_seconds} to {end_seconds} s"
                raise ValueError(f"{path}: no frame from {asked}; the last is at {video.seconds[-1]:.2f} s")
            places = shown[rule.views(len(shown), frames, 1)[0]]
            picked = video.frames(places, short_side=reading_short_side(size))
    except BadVideo as error:
        raise ValueError(str(error)) from error
    return test_crops(picked, size, 1)[0]


def _shown(seconds: Float64[np.ndarray, " N"], start: float, end: float | None) -> Int64[np.ndarray, " K"]:
    inside = seconds >= start
    if end is not None:
        inside &= seconds < end
    return np.flatnonzero(inside).astype(np.int64)
