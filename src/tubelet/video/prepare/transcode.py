"""One video made ready for training: small upright frames, all of them, in files that are quick to seek and decode."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from math import ceil
from pathlib import Path
from typing import Final

from pydantic import Field

from tubelet.spec import Spec
from tubelet.video.prepare.encode import VideoEncoder
from tubelet.video.prepare.upright import UprightYuv
from tubelet.video.read.sequence import (
    FileSource,
    FolderSource,
    NoTimes,
    Shown,
    at_constant_rate,
    mean_spacing,
    open_source,
)

FRAMES_A_BEAT: Final = 50


class Preparation(Spec):
    """How videos are made ready for training."""

    short_side: int = Field(default=320, ge=2, description="pixels; larger frames are scaled down, never up")
    fps: float | None = Field(default=None, gt=0, le=1000, description="constant frame rate; none: the source's times")
    gop: int = Field(default=24, ge=1, description="frames from one key frame to the next, at most")
    crf: int = Field(default=23, ge=0, le=51, description="x264 quality: 0 is lossless, 23 usual")
    segment_seconds: float | None = Field(default=None, gt=0, description="longer videos are cut into equal parts")

    @property
    def rate(self) -> Fraction | None:
        """The constant rate, exactly."""
        return None if self.fps is None else Fraction(self.fps).limit_denominator(1001)


@dataclass(frozen=True)
class PreparedFile:
    """A prepared file and the seconds of the source that it holds, counted from the source's first frame."""

    path: Path
    start_seconds: float
    end_seconds: float
    frames: int
    width: int
    height: int
    bytes: int


def transcode(
    source: Path, target: Callable[[int], Path], how: Preparation, *, beat: Callable[[float], None]
) -> tuple[PreparedFile, ...]:
    """Write the frames of `source` to `target(0)`, `target(1)`, ... and say what each holds.

    Every frame is there once, in its order and at its time; with `how.fps`, what is on show at each tick instead. The
    files are on the disk when this returns; after an error there are none. `beat` is called now and then with the share
    of the source that is done, 0 where its length is not known. BadVideo where the source does not decode to its end;
    OSError where a target cannot be written.
    """
    try:
        return _Transcoding(source, target, how, beat).run(by_count=False)
    except NoTimes:
        return _Transcoding(source, target, how, beat).run(by_count=True)


class _Transcoding:
    """The parts of one source, one after the other."""

    def __init__(
        self, source: Path, target: Callable[[int], Path], how: Preparation, beat: Callable[[float], None]
    ) -> None:
        self._source, self._target, self._how, self._beat = source, target, how, beat
        self._parts: list[VideoEncoder] = []
        self._starts: list[Fraction] = []
        self._seen, self._last = 0, Fraction(0)
        self._upright: UprightYuv | None = None

    def run(self, *, by_count: bool) -> tuple[PreparedFile, ...]:
        try:
            with open_source(self._source, by_count=by_count) as opened:
                rate = self._how.rate
                frames = opened.frames() if rate is None else at_constant_rate(opened.frames(), rate, self._source)
                length = part_seconds(opened.seconds, self._how.segment_seconds)
                for _, group in groupby(frames, lambda shown: 0 if length is None else shown.seconds // length):
                    self._encode(group, opened)
                self._starts.append(self._last + mean_spacing(self._last, self._seen, rate or opened.rate))
        except BaseException:
            for part in self._parts:
                part.drop()
            raise
        return tuple(
            PreparedFile(part.path, float(start), float(end), part.frames, *part.size, part.bytes)
            for part, start, end in zip(self._parts, self._starts, self._starts[1:], strict=False)
        )

    def _encode(self, group: Iterable[Shown], opened: FileSource | FolderSource) -> None:
        rate = self._how.rate
        part = VideoEncoder(
            self._target(len(self._parts)),
            self._source,
            tick=opened.tick if rate is None else 1 / rate,
            rate=rate or opened.rate,
            gop=self._how.gop,
            crf=self._how.crf,
        )
        self._parts.append(part)
        start = None
        for shown in group:
            if self._upright is None:
                size = opened.size if min(opened.size) else (shown.frame.width, shown.frame.height)
                self._upright = UprightYuv(size, short_side=self._how.short_side)
            if start is None:
                start = shown.seconds
                self._starts.append(start)
            part.add(self._upright(shown.frame), shown.seconds - start)
            self._seen, self._last = self._seen + 1, shown.seconds
            if self._seen % FRAMES_A_BEAT == 0:
                self._beat(min(float(shown.seconds) / opened.seconds, 1.0) if opened.seconds else 0.0)
        part.finish()


def part_seconds(total: float | None, longest: float | None) -> Fraction | None:
    """Length of the parts of a video: as few as `longest` allows, all equal. None: one part."""
    if longest is None:
        return None
    return Fraction(longest) if total is None else Fraction(total) / max(ceil(total / longest), 1)
