"""From a decoded PyAV frame to upright RGB bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import UInt8


class UprightRgb:
    """Converts the frames of one video: RGB, turned upright, all of one size.

    `size` is (width, height) as stored, before turning; a frame of another size (some streams change it half-way) is
    scaled to it. With `short_side` larger frames are scaled down while they are converted.
    """

    def __init__(self, size: tuple[int, int], *, short_side: int | None = None) -> None:
        self._size = shrink(size, short_side)
        self._reformatter = VideoReformatter()

    def __call__(self, frame: Any) -> UInt8[np.ndarray, "H W 3"]:
        width, height = self._size
        rgb = self._reformatter.reformat(
            frame, width=width, height=height, format="rgb24", interpolation=Interpolation.BILINEAR, threads=1
        )
        return np.ascontiguousarray(np.rot90(rgb.to_ndarray(), quarter_turns(rotation_degrees(frame))))


def shrink(size: tuple[int, int], short_side: int | None) -> tuple[int, int]:
    """(width, height) with a short side of at most `short_side` pixels, same shape."""
    width, height = size
    if short_side is None or min(size) <= short_side:
        return width, height
    scale = short_side / min(size)
    return max(round(width * scale), 1), max(round(height * scale), 1)


def rotation_degrees(frame: Any) -> int:
    """Counter-clockwise degrees by which the frame must be turned, -180..180; 0 where the file holds nonsense."""
    degrees = int(frame.rotation)
    return degrees if abs(degrees) <= 360 else 0


def quarter_turns(degrees: int) -> int:
    """Counter-clockwise quarter turns. Phones only write multiples of 90; anything else goes to the nearest."""
    return round(degrees / 90) % 4
