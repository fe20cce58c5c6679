"""A piece of a long video that counts as a video of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from math import floor, inf
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from tubelet.video.read.decoders import Reading, Video
from tubelet.video.read.errors import BadVideo
from tubelet.video.read.info import VideoInfo


@dataclass(frozen=True)
class VideoPart:
    """Frames shown from `start_seconds` on and before `end_seconds`, both counted from the first frame of the video.

    `number` counts the pieces of a video from 1; the last one ends with the video (`end_seconds` is infinite).
    """

    number: int
    start_seconds: float
    end_seconds: float

    def __str__(self) -> str:
        return f"#{self.number:04d}"

    @property
    def words(self) -> str:
        """Which part of the video it is."""
        end = "to the end" if self.end_seconds == inf else f"to {self.end_seconds:g} s"
        return f"from {self.start_seconds:g} s {end}"


def parts_of(seconds: float, each_seconds: float) -> tuple[VideoPart | None, ...]:
    """Pieces of `each_seconds` of a video of `seconds`; (None,), the whole, where it is not long enough for two.

    What is left at the end becomes a piece of its own from half of that length on, else it goes to the piece before.
    """
    count = floor(seconds / each_seconds + 0.5)
    if count < 2:
        return (None,)
    return tuple(
        VideoPart(
            number=number + 1,
            start_seconds=number * each_seconds,
            end_seconds=inf if number == count - 1 else (number + 1) * each_seconds,
        )
        for number in range(count)
    )


class PartOfVideo:
    """The frames of a part of an open video, numbered from 0. BadVideo where the part holds none."""

    def __init__(self, video: Video, part: VideoPart) -> None:
        self._video = video
        self._first, self._stop = video.between(part.start_seconds, part.end_seconds)
        if self._first >= self._stop:
            raise BadVideo(video.path, f"no frame {part.words}")

    def __len__(self) -> int:
        return self._stop - self._first

    @cached_property
    def info(self) -> VideoInfo:
        """Facts of the file, with the number of frames of the part."""
        return replace(self._video.info, frames=len(self))

    def frames(
        self, indices: Sequence[int] | Int64[np.ndarray, " T"], *, short_side: int | None = None
    ) -> UInt8[np.ndarray, "T H W 3"]:
        """RGB frames by their number in the part; IndexError for one outside."""
        wanted = np.asarray(indices, dtype=np.int64)
        if len(wanted) == 0 or wanted.min() < 0 or wanted.max() >= len(self):
            raise IndexError(f"{self._video.path}: frames {wanted.tolist()[:2]} of {len(self)}")
        return self._video.frames(wanted + self._first, short_side=short_side)


@contextmanager
def open_part(reading: Reading, path: Path, part: VideoPart | None) -> Iterator[Video | PartOfVideo]:
    """A video, or a part of it, for the time of a `with` block. BadVideo where it cannot be read."""
    with reading.open(path) as video:
        yield video if part is None else PartOfVideo(video, part)
