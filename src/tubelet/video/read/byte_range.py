"""A video that lies inside another file, such as a member of a tar: named by a path like `000003.tar#1536+20480`."""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

BUFFER_BYTES: Final = 2**18
"""What FFmpeg asks such a file for at once: few requests, should the file be far away."""
_RANGE: Final = re.compile(r"(?P<file>.+\.tar)#(?P<offset>\d+)\+(?P<size>\d+)", re.DOTALL)


@dataclass(frozen=True)
class ByteRange:
    """`size` bytes of `file` from `offset` on."""

    file: Path
    offset: int
    size: int

    def path(self) -> Path:
        """The path that stands for it wherever a video is named."""
        return self.file.with_name(f"{self.file.name}#{self.offset}+{self.size}")


def byte_range_of(path: Path) -> ByteRange | None:
    """What a path of that form means; None for an ordinary path."""
    match = _RANGE.fullmatch(str(path))
    return None if match is None else ByteRange(Path(match["file"]), int(match["offset"]), int(match["size"]))


def file_of(path: Path) -> Path:
    """The file that a video is read from: itself, or the one that it lies in."""
    inside = byte_range_of(path)
    return path if inside is None else inside.file


class ByteRangeReader(io.RawIOBase):
    """The bytes of a range as a file of their own, to read and seek in."""

    def __init__(self, inside: ByteRange) -> None:
        super().__init__()
        self._range, self._at = inside, 0
        self._file = inside.file.open("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._range.size}[whence]
        self._at = max(start + offset, 0)
        return self._at

    def read(self, size: int = -1, /) -> bytes:
        left = max(self._range.size - self._at, 0)
        self._file.seek(self._range.offset + self._at)
        found = self._file.read(left if size < 0 else min(size, left))
        self._at += len(found)
        return found

    def close(self) -> None:
        self._file.close()
        super().close()
