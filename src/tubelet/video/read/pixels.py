"""From a decoded PyAV frame to upright RGB bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import UInt8


class UprightRgb:
    """Converts the frames of one video: RGB, turned upright, all of one size, each into its place of one array.

    `size` is (width, height) as stored, before turning, (0, 0) where the file does not say; a frame of another size
    (some streams change it half-way) is scaled to it. With `short_side` larger frames are scaled down while they are
    converted. `places` are the keys of the frames, in the order of `array`.
    """

    def __init__(self, size: tuple[int, int], places: Sequence[int], *, short_side: int | None) -> None:
        self._size, self._short_side = size, short_side
        self._place = {key: place for place, key in enumerate(places)}
        self._reformatter = VideoReformatter()
        self._array: UInt8[np.ndarray, "K H W 3"] | None = None
        self._filled: set[int] = set()

    @property
    def array(self) -> UInt8[np.ndarray, "K H W 3"]:
        """All frames, once each was put in."""
        assert self._array is not None, "no frame was put in"
        assert self.missing == 0, "frames are missing"
        return self._array

    @property
    def missing(self) -> int:
        """How many frames were not put in yet."""
        return len(self._place) - len(self._filled)

    def put(self, key: int, frame: Any) -> None:
        """Convert a PyAV frame. ValueError where it is turned otherwise than the first one was."""
        if not min(self._size):
            self._size = (frame.width, frame.height)
        width, height = shrink(self._size, self._short_side)
        rgb = self._reformatter.reformat(
            frame, width=width, height=height, format="rgb24", interpolation=Interpolation.BILINEAR, threads=1
        )
        upright, turns = rgb.to_ndarray(), quarter_turns(rotation_degrees(frame))
        if turns:
            upright = np.rot90(upright, turns)
        if self._array is None:
            self._array = np.empty((len(self._place), *upright.shape), dtype=np.uint8)
        if upright.shape != self._array.shape[1:]:
            raise ValueError("frames are turned differently within the video")
        self._array[self._place[key]] = upright
        self._filled.add(key)


def shrink(size: tuple[int, int], short_side: int | None) -> tuple[int, int]:
    """(width, height) with a short side of at most `short_side` pixels, same shape."""
    width, height = size
    if short_side is None or min(size) <= short_side:
        return width, height
    scale = short_side / min(size)
    return max(round(width * scale), 1), max(round(height * scale), 1)


def reading_short_side(clip_size: int) -> int:
    """Short side, in pixels, to which frames are scaled while they are read for clips of `clip_size`.

    10/7 of it, which is 320 for 224: the size at which the authors keep Kinetics. It leaves room for random crops.
    """
    return round(clip_size * 10 / 7)


def rotation_degrees(frame: Any) -> int:
    """Counter-clockwise degrees by which the frame must be turned, -180..180; 0 where the file holds nonsense."""
    degrees = int(frame.rotation)
    return degrees if abs(degrees) <= 360 else 0


def quarter_turns(degrees: int) -> int:
    """Counter-clockwise quarter turns. Phones only write multiples of 90; anything else goes to the nearest."""
    return round(degrees / 90) % 4
