"""Which files of a set can be read: every file is decoded in full, in processes that may crash or hang."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tubelet.video.read.file import BadVideo, VideoInfo, open_video
from tubelet.video.read.limits import MEMORY_BYTES, last_resort
from tubelet.video.work.team import Beat, Lost, each


@dataclass(frozen=True)
class Report:
    """What decoding a file gave: `reason` says why it is broken (empty: readable), `frames` how many came before that.

    `info` is None where the file could not even be opened.
    """

    frames: int
    info: VideoInfo | None
    reason: str = ""

    @property
    def is_readable(self) -> bool:
        return not self.reason


def examine(path: Path) -> Report:
    """Decode a file in full."""
    info = None
    try:
        with open_video(path) as video:
            info = video.info
            frames = video.check()
    except BadVideo as bad:
        return Report(bad.good_frames, info, bad.reason)
    return Report(frames, replace(info, frames=frames))


def scan(
    paths: Sequence[Path],
    *,
    workers: int,
    limit_seconds: float,
    examine: Callable[[Path], Report] = examine,
) -> Iterator[tuple[int, Report]]:
    """(place in `paths`, report) in the order in which they are done.

    A file that kills its process, or takes longer than `limit_seconds`, is reported as broken; the others go on.
    """
    for place, said in each(paths, _Examining(examine), workers=workers, limit_seconds=limit_seconds):
        if isinstance(said, Lost):
            yield place, Report(0, None, said.reason)
        elif isinstance(said, Report):
            yield place, said


@dataclass(frozen=True)
class _Examining:
    """A look at one file as work for a process, which says nothing before it is done."""

    examine: Callable[[Path], Report]

    def __call__(self, path: Path, beat: Beat) -> Report:
        del beat
        with last_resort(seconds=None, memory_bytes=MEMORY_BYTES):  # for the time of a file there is who waits for it
            return self.examine(path)
