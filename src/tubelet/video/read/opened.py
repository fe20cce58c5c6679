"""An open file and its video stream, as FFmpeg gives them, within limits. Decodes with one thread."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av

from tubelet.video.read.byte_range import BUFFER_BYTES, ByteRangeReader, byte_range_of, file_of
from tubelet.video.read.errors import BadVideo
from tubelet.video.read.limits import Clock, Limits

av.logging.set_level(av.logging.PANIC)  # FFmpeg writes its own complaints to stderr; ours carry the file's name


class Opened:
    """`container` and `stream` are PyAV's. Raises FFmpeg's errors, and BadVideo where a limit is passed."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path, self.limits = path, limits
        self.clock = Clock(path, limits)
        self.container: Any = None
        self.stream: Any = None
        self._range: ByteRangeReader | None = None

    def open(self) -> None:
        """Open the file, anew if it is open."""
        self.close()
        if not stat.S_ISREG(os.stat(file_of(self.path)).st_mode):  # opening a pipe waits for its writer, for ever
            raise BadVideo(self.path, "not a file" if not self.path.is_dir() else "a folder")
        largest = {"max_pixels": str(self.limits.pixels)}  # the decoder refuses more before it allocates them
        inside = byte_range_of(self.path)
        self._range = None if inside is None else ByteRangeReader(inside)
        self.container = av.open(
            self._range or str(self.path), options=largest, metadata_errors="ignore", buffer_size=BUFFER_BYTES
        )
        self.stream = self.container.streams.best("video")
        if self.stream is None or self.stream.codec_context is None:
            raise BadVideo(self.path, "no video stream")
        self._check_size()
        self.stream.thread_type = "NONE"
        self.stream.codec_context.thread_count = 1
        self.stream.codec_context.options = largest

    def close(self) -> None:
        """Give the file and FFmpeg's buffers back. Open containers are what makes PyAV loaders grow."""
        if self.container is not None:
            self.container.close()
        if self._range is not None:
            self._range.close()
        self.container = self.stream = self._range = None

    def decoded(self) -> Iterator[tuple[int, Any]]:
        """All frames from the start, numbered."""
        self.open()
        for number, frame in enumerate(self.container.decode(self.stream)):
            self.clock.check()
            if number >= self.limits.frames:
                raise BadVideo(self.path, f"more than {self.limits.frames} frames", number)
            yield number, frame

    def _check_size(self) -> None:
        width, height = self.stream.codec_context.width, self.stream.codec_context.height
        if width * height > self.limits.pixels:
            raise BadVideo(
                self.path, f"frames of {width}x{height} pixels; at most {self.limits.pixels} pixels are read"
            )
        if self.stream.frames > self.limits.frames:
            raise BadVideo(
                self.path, f"the header promises {self.stream.frames} frames; at most {self.limits.frames} are read"
            )
