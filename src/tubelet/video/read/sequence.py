"""All frames of a video from first to last, each with the time at which it is shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any, Final

import av

from tubelet.video.read.errors import FFMPEG_ERRORS, BadVideo, damage, in_words
from tubelet.video.read.frame_folder import FRAMES_A_SECOND, FrameFolder
from tubelet.video.read.frame_range import FrameRange, frame_range_of
from tubelet.video.read.limits import Limits
from tubelet.video.read.opened import Opened

LONGEST_HOLE_SECONDS: Final = 60
"""How much of a hole in time is filled with the frame before it, where a constant rate is asked for."""
LATE_SECONDS: Final = Fraction(1, 1000)
"""By so much a frame may come after its tick, at most by a tenth of a tick: some containers round to milliseconds."""


@dataclass(frozen=True)
class Shown:
    """A decoded PyAV frame and when it is shown, seconds after the first."""

    frame: Any
    seconds: Fraction


class NoTimes(Exception):  # noqa: N818
    """The frames do not say when they are shown: read them again, by count."""


class FileSource:
    """An open video, to be read once. With `by_count` frames come at its mean rate, as `VideoFile` has it then, too.

    BadVideo where it cannot be opened, or passes a limit.
    """

    def __init__(self, path: Path, *, by_count: bool, limits: Limits = Limits()) -> None:
        self._by_count = by_count
        self._file = Opened(path, limits)
        with damage(path, "cannot be opened as a video"):
            self._file.open()
        stream = self._file.stream
        self.size = (stream.codec_context.width, stream.codec_context.height)
        """Width and height as stored; 0 where only frames know."""
        self.rate = Fraction(stream.average_rate or stream.guessed_rate or 1)
        """Frames a second, on average."""
        self.tick = 1 / self.rate if by_count else Fraction(stream.time_base)
        """What the times of all frames are multiples of, seconds."""
        self.seconds = _stated_seconds(self._file)
        """Length as the file states it, if it does."""

    def __enter__(self) -> FileSource:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def frames(self) -> Iterator[Shown]:
        """BadVideo where decoding ends in an error; NoTimes where a frame does not come later than the one before."""
        done, first, last = 0, 0, None
        try:
            for number, frame in self._file.decoded():
                time = number if self._by_count else frame.pts
                if time is None or (last is not None and time <= last):
                    raise NoTimes
                first = time if last is None else first
                last, done = time, number + 1
                yield Shown(frame, (time - first) * self.tick)
        except FFMPEG_ERRORS as error:
            why = in_words(error)
            reason = f"damaged: {why} after {done} good frames" if done else f"no frame can be decoded: {why}"
            raise BadVideo(self._file.path, reason, done) from error
        if not done:
            raise BadVideo(self._file.path, "no frame can be decoded")


class FolderSource:
    """A folder of images, with the interface of `FileSource`; they are shown at `FRAMES_A_SECOND`."""

    size = (0, 0)
    rate = Fraction(FRAMES_A_SECOND)
    tick = 1 / Fraction(FRAMES_A_SECOND)

    def __init__(self, images: FrameRange, limits: Limits) -> None:
        self._folder = FrameFolder(images, limits)
        self.seconds = len(self._folder) / FRAMES_A_SECOND

    def __enter__(self) -> FolderSource:
        return self

    def __exit__(self, *error: object) -> None:
        self._folder.close()

    def frames(self) -> Iterator[Shown]:
        """BadVideo where an image is bad."""
        for number, frame in enumerate(self._folder.decoded()):
            yield Shown(frame, number * self.tick)


def open_source(path: Path, *, by_count: bool, limits: Limits = Limits()) -> FileSource | FolderSource:
    """A file or a folder of images, to be read once. BadVideo where it cannot be opened, or passes a limit."""
    images = frame_range_of(path)
    return FileSource(path, by_count=by_count, limits=limits) if images is None else FolderSource(images, limits)


def _stated_seconds(file: Opened) -> float | None:
    if file.stream.duration:
        return float(file.stream.duration * file.stream.time_base)
    return file.container.duration / av.time_base if file.container.duration else None


def at_constant_rate(frames: Iterable[Shown], rate: Fraction, path: Path) -> Iterator[Shown]:
    """The frame on show at each tick of a clock of `rate` a second, as long as the video lasts; at least one.

    BadVideo for a hole of more than `LONGEST_HOLE_SECONDS` in the times of `path`.
    """
    tick, count, held = 0, 0, None
    late = min(LATE_SECONDS * rate, Fraction(1, 10))
    for shown in frames:
        if held is not None:
            hole = shown.seconds - held.seconds
            if hole > LONGEST_HOLE_SECONDS:
                raise BadVideo(path, f"no frame for {float(hole):.0f} seconds; a constant rate cannot fill that", count)
            while tick < ceil(shown.seconds * rate - late):
                yield Shown(held.frame, tick / rate)
                tick += 1
        held, count = shown, count + 1
    if held is not None:
        end = held.seconds + mean_spacing(held.seconds, count, rate)
        while tick == 0 or tick < ceil(end * rate - late):
            yield Shown(held.frame, tick / rate)
            tick += 1


def mean_spacing(last_seconds: Fraction, frames: int, rate: Fraction) -> Fraction:
    """Seconds from one frame to the next on average: what the last frame is taken to last."""
    return last_seconds / (frames - 1) if frames > 1 else 1 / rate
