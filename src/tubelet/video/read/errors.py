"""What goes wrong with a video file: what FFmpeg and PyAV raise, turned into one plain line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import av

from tubelet.names import one_line

FFMPEG_ERRORS: Final = (
    av.FFmpegError, OSError, ValueError, RuntimeError, ArithmeticError, LookupError, MemoryError,
)  # fmt: skip


class BadVideo(Exception):  # noqa: N818  (reads as what it is: raise BadVideo)
    """A file that cannot be read as video: `path`, `reason` in one plain line, and the frames decoded before that."""

    def __init__(self, path: Path, reason: str, good_frames: int = 0) -> None:
        super().__init__(path, reason, good_frames)
        self.path = path
        self.reason = reason
        self.good_frames = good_frames

    def __str__(self) -> str:
        return f"{one_line(str(self.path))}: {self.reason}"


@contextmanager
def damage(path: Path, what: str) -> Iterator[None]:
    """Inside, what FFmpeg raises becomes a BadVideo that says `what` and why."""
    try:
        yield
    except FFMPEG_ERRORS as error:
        raise BadVideo(path, f"{what}: {in_words(error)}") from error


def in_words(error: Exception) -> str:
    """FFmpeg's message without its number and the path."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, av.error.InvalidDataError):
        return "invalid data"
    if isinstance(error, av.FFmpegError):
        return str(error.strerror or type(error).__name__).strip().rstrip(":.").lower()
    return str(error).splitlines()[0] if str(error) else type(error).__name__
