"""From a decoded PyAV frame to what the encoder of `prepare` takes: yuv420p, upright, even sides."""

from __future__ import annotations

from typing import Any, Final

import av
import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from tubelet.video.read.pixels import quarter_turns, rotation_degrees, shrink

NO_PICTURE_TYPE: Final = 0
"""Else the encoder would repeat the source's key frames."""


class UprightYuv:
    """Converts the frames of one video to yuv420p of one size, turned upright, scaled down as the reader does it.

    `size` is (width, height) as stored, before turning. Sides become even, by a pixel less: 4:2:0 has colour for pairs
    of pixels only.
    """

    def __init__(self, size: tuple[int, int], *, short_side: int | None) -> None:
        self._size = even(shrink(size, short_side))
        self._reformatter = VideoReformatter()

    def __call__(self, frame: Any) -> Any:
        width, height = self._size
        turns = quarter_turns(rotation_degrees(frame))
        small = self._reformatter.reformat(
            frame, width=width, height=height, format="yuv420p", interpolation=Interpolation.BILINEAR,
            dst_color_range=ColorRange.MPEG, threads=1,
        )  # fmt: skip
        if turns:
            small = _turned(small, turns)
        small.pict_type = NO_PICTURE_TYPE
        return small


def even(size: tuple[int, int]) -> tuple[int, int]:
    """The largest even (width, height) within `size`, at least 2 x 2."""
    return max(size[0] // 2 * 2, 2), max(size[1] // 2 * 2, 2)


def _turned(frame: Any, turns: int) -> Any:
    """A copy without the source's rotation tag; `turns` are counter-clockwise quarters."""
    planes = [np.ascontiguousarray(np.rot90(_plane(plane), turns)) for plane in frame.planes]
    stacked = np.concatenate([plane.ravel() for plane in planes]).reshape(-1, planes[0].shape[1])
    upright = av.VideoFrame.from_ndarray(stacked, format="yuv420p")
    upright.colorspace, upright.color_range = frame.colorspace, frame.color_range
    return upright


def _plane(plane: Any) -> Any:
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    return rows[:, : plane.width]
