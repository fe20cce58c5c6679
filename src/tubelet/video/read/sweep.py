"""Reading a file forwards, a few frames at a time, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from tubelet.video.read.errors import FFMPEG_ERRORS
from tubelet.video.read.opened import Opened
from tubelet.video.read.packets import PacketIndex
from tubelet.video.read.pixels import UprightRgb
from tubelet.video.read.seek import OutOfStep, decode_from, groups

Frames = UInt8[np.ndarray, "K H W 3"]
Plain = Callable[[Int64[np.ndarray, " K"]], Frames]


class Sweep:
    """Gives wanted frames call by call; a call for later frames goes on where the one before stopped.

    Without that, each call decodes again from a key frame, of which a long file may have one. Where the file does not
    keep what its packets promise, `plain` reads from then on. While a sweep is in use nothing else may read the file.
    """

    def __init__(
        self, file: Opened, index: PacketIndex | None, plain: Plain, *, size: tuple[int, int], short_side: int | None
    ) -> None:
        self._file, self._index, self._plain = file, index, plain
        self._size, self._short_side = size, short_side
        self._is_lost = index is None and not min(size)  # sizes that only frames know are left to `plain`
        self._start, self._following = -1, 0
        self._coming: Iterator[tuple[int, Any]] = iter(())

    def frames(self, wanted: Int64[np.ndarray, " K"]) -> Frames:
        """These frames, in ascending order without repeats."""
        if not self._is_lost:
            try:
                return self._onwards(wanted)
            except (*FFMPEG_ERRORS, OutOfStep):
                self._is_lost = True
        return self._plain(wanted)

    def _onwards(self, wanted: Int64[np.ndarray, " K"]) -> Frames:
        rgb = UprightRgb(self._size, wanted.tolist(), short_side=self._short_side)
        parts = [(0, wanted.tolist())] if self._index is None else groups(self._index, wanted)
        for start, group in parts:
            if self._start != start or self._following > group[0]:
                self._begin(start)
            self._take(set(group), rgb)
        return rgb.array

    def _begin(self, start: int) -> None:
        self._start = start
        if self._index is None:
            self._following, self._coming = 0, self._file.decoded()
        else:
            self._following = self._index.first_frame(start)
            self._coming = decode_from(self._file, self._index, start)

    def _take(self, ask: set[int], rgb: UprightRgb) -> None:
        last = max(ask)
        for number, frame in self._coming:
            self._following = number + 1
            if number in ask:
                rgb.put(number, frame)
            if number == last:
                return
        raise OutOfStep
