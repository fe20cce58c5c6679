"""Reading a piece of a long video, and cutting videos into pieces by the length that their headers state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, inf
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Int64, UInt8

from tubelet.video.decoders import Reading, Video
from tubelet.video.errors import BadVideo
from tubelet.video.frame_folder import FrameFolder
from tubelet.video.image_file import ImageFile
from tubelet.video.info import VideoInfo
from tubelet.video.limits import MEMORY_BYTES, last_resort
from tubelet.video.manifest import VideoRef
from tubelet.video.part import Part, parts_of
from tubelet.video.read import VideoFile, open_video
from tubelet.video.source import open_source
from tubelet.video.still import is_still
from tubelet.video.team import Beat, Lost, Progress, each

_ROUNDING_SECONDS: Final = 1e-6


class PartOfVideo:
    """The frames of a part of an open video, numbered from 0. BadVideo where the part holds none."""

    def __init__(self, video: Video, part: Part) -> None:
        self._video = video
        self._first, self._stop = _bounds(video, part)
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
def open_part(reading: Reading, path: Path, part: Part | None) -> Iterator[Video | PartOfVideo]:
    """A video, or a part of it, for the time of a `with` block. BadVideo where it cannot be read."""
    with reading.open(path) as video:
        yield video if part is None else PartOfVideo(video, part)


def _bounds(video: Video, part: Part) -> tuple[int, int]:
    """The first frame of the part, and the first one after it."""
    if isinstance(video, VideoFile | FrameFolder | ImageFile):
        edges = np.array([part.start_seconds, part.end_seconds]) - _ROUNDING_SECONDS
        first, stop = np.searchsorted(video.seconds, edges)
        return int(first), int(stop)
    if video.info.fps <= 0:
        raise BadVideo(video.path, "cannot be cut: it states no frame rate")
    return bounds_at(video.info.fps, len(video), part)


def bounds_at(rate: float, frames: int, part: Part) -> tuple[int, int]:
    """The first frame of the part, and the first one after it, where frames come at a constant `rate` a second.

    For decoders that tell no times without decoding.
    """
    first = ceil((part.start_seconds - _ROUNDING_SECONDS) * rate)
    stop = frames if part.end_seconds == inf else ceil((part.end_seconds - _ROUNDING_SECONDS) * rate)
    return first, min(stop, frames)


@dataclass(frozen=True)
class Length:
    """How long a video is, in seconds; None where that cannot be told, and why."""

    seconds: float | None
    reason: str = ""


def lengths(
    paths: Sequence[Path], *, workers: int, limit_seconds: float, on_progress: Callable[[int], None]
) -> list[Length]:
    """The length of each file, from its header where that states it: nothing is decoded for it.

    Files are opened by processes that may crash or hang; `on_progress` gets the number of files done.
    """
    found = [Length(None, "not looked at")] * len(paths)
    for done, (place, said) in enumerate(each(paths, length_of, workers=workers, limit_seconds=limit_seconds), start=1):
        if isinstance(said, Lost):
            found[place] = Length(None, said.reason)
        elif not isinstance(said, Progress):
            found[place] = said
        on_progress(done)
    return found


def length_of(path: Path, beat: Beat) -> Length:
    """The length of a file: as stated, else from its packets."""
    del beat
    if is_still(path):
        return Length(0.0)
    with last_resort(seconds=None, memory_bytes=MEMORY_BYTES):
        try:
            with open_source(path, by_count=False) as source:
                if source.seconds:
                    return Length(float(source.seconds))
            with open_video(path) as video:
                return Length(float(video.seconds[-1]))
        except BadVideo as bad:
            return Length(None, bad.reason)


def pieces(videos: Sequence[VideoRef], found: Sequence[Length], each_seconds: float) -> tuple[VideoRef, ...]:
    """The videos cut into pieces, which count as videos: `name#0001`. One whose length is not known stays whole."""
    cut: list[VideoRef] = []
    for video, length in zip(videos, found, strict=True):
        for part in (None,) if length.seconds is None else parts_of(length.seconds, each_seconds):
            cut.append(video if part is None else replace(video, name=f"{video.name}{part}", part=part))
    return tuple(cut)
