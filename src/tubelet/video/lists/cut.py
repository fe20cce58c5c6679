"""Reading a piece of a long video, and cutting videos into pieces by the length that their headers state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tubelet.video.lists.manifest import VideoRef
from tubelet.video.read.errors import BadVideo
from tubelet.video.read.file import open_video
from tubelet.video.read.limits import MEMORY_BYTES, last_resort
from tubelet.video.read.numbered import is_still
from tubelet.video.read.part import parts_of
from tubelet.video.read.sequence import open_source
from tubelet.video.work.team import Advance, Beat, Lost, each


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
        elif not isinstance(said, Advance):
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
