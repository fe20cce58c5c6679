"""Frames into an H.264 file that is quick to seek and to decode."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av

from tubelet.disk.write import sync
from tubelet.video.read.errors import FFMPEG_ERRORS, BadVideo, in_words

X264: Final = {
    "preset": "veryfast",
    "tune": "fastdecode",  # no CABAC, no deblocking
    # Three frames in four are needed by no other one, at fixed places: a reader with a stride can leave them out.
    # With mbtree one encoding in ten of 170 x 128 pixels came out otherwise; without it 165 of 165 came out equal.
    "x264-params": "bframes=3:b-adapt=0:b-pyramid=none:ref=1:weightb=0:mbtree=0",
    "threads": "1",
}
FINEST_TICK: Final = Fraction(1, 1_000_000)
"""Seconds. MP4 counts the length of a frame in 32 bits of ticks: finer ones leave no room for a long frame."""
RATES: Final = (1, 240)
"""Frames a second that the encoder is told at least and at most; some files state nonsense."""
_UNSPECIFIED: Final = 2
_OF_THE_DISK: Final = frozenset({
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOENT, errno.ESTALE,
    errno.EMFILE, errno.ENFILE, errno.EFBIG,
})  # fmt: skip


class VideoEncoder:
    """Writes one file. `size`, `frames` and `bytes` tell what is in it; it is on the disk after `finish`.

    `tick` and `rate` are those of the times to come. OSError where the disk refuses; BadVideo, in the name of `source`,
    where the encoder does. After either, call `drop`.
    """

    def __init__(self, path: Path, source: Path, *, tick: Fraction, rate: Fraction, gop: int, crf: int) -> None:
        self.path, self._source = path, source
        self._tick, self._rate = max(tick, FINEST_TICK), min(max(rate, RATES[0]), RATES[1])
        self._gop, self._crf = gop, crf
        self._container: Any = None
        self._stream: Any = None
        self._last = -1
        self.frames = 0

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, pixels."""
        return self._stream.width, self._stream.height

    @property
    def bytes(self) -> int:
        return self.path.stat().st_size

    def add(self, picture: Any, seconds: Fraction) -> None:
        """Append a yuv420p frame to be shown `seconds` after the start of the file; later than the one before."""
        with self._refusals():
            if self._container is None:
                self._open(picture)
            if (picture.width, picture.height) != self.size:
                raise BadVideo(self._source, "frames are turned differently within the video", self.frames)
            self._last = max(round(seconds / self._tick), self._last + 1)
            picture.pts, picture.time_base = self._last, self._tick
            self._container.mux(self._stream.encode(picture))
        self.frames += 1

    def finish(self) -> None:
        """Write what is left, and look whether all frames have arrived."""
        with self._refusals():
            self._container.mux(self._stream.encode(None))
            self._container.close()
            with av.open(_url(self.path), format="mp4") as written:
                arrived = sum(packet.size > 0 for packet in written.demux(video=0))
        if arrived != self.frames:
            raise OSError(errno.EIO, f"only {arrived} of {self.frames} frames arrived in the file", str(self.path))
        sync(self.path)

    def drop(self) -> None:
        """Close and remove the file, whatever state it is in."""
        try:
            if self._container is not None:
                self._container.close()
        except FFMPEG_ERRORS:  # it is about to go
            pass
        finally:
            self.path.unlink(missing_ok=True)

    def _open(self, picture: Any) -> None:
        self._container = av.open(_url(self.path), "w", format="mp4", container_options={"movflags": "faststart"})
        self._stream = self._container.add_stream("libx264", rate=self._rate)
        self._stream.width, self._stream.height, self._stream.pix_fmt = picture.width, picture.height, "yuv420p"
        self._stream.options = {**X264, "crf": str(self._crf)}
        context = self._stream.codec_context
        context.time_base, context.gop_size = self._tick, self._gop
        context.color_range, context.colorspace = picture.color_range, picture.colorspace

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except av.FFmpegError as error:
            if error.errno in _OF_THE_DISK:
                raise OSError(error.errno, os.strerror(error.errno), str(self.path)) from error
            raise BadVideo(self._source, f"cannot be encoded: {in_words(error)}", self.frames) from error


def _url(path: Path) -> str:
    """Said in full, because FFmpeg takes `a:b.mp4` for a protocol."""
    return f"file:{path.absolute()}"
