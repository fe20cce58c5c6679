"""Paths that name a folder of images as one video: the folder itself, or some of its images as `folder#101+64`."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tubelet.video.read.byte_range import file_of
from tubelet.video.read.errors import BadVideo, in_words
from tubelet.video.read.numbered import numbering_of

_RANGE: Final = re.compile(r"(?P<folder>.+)#(?P<first>\d*)\+(?P<frames>\d+)", re.DOTALL)


@dataclass(frozen=True)
class FrameRange:
    """`frames` images of `folder` from number `first` on (None: the lowest there is); by default the whole folder."""

    folder: Path
    first: int | None = None
    frames: int | None = None

    def path(self) -> Path:
        """The path that stands for it wherever a video is named."""
        if self.frames is None:
            return self.folder
        return self.folder.with_name(f"{self.folder.name}#{'' if self.first is None else self.first}+{self.frames}")

    @property
    def shown(self) -> Path:
        """The path without the range where that starts with the first image, as it usually does: to name the video."""
        return self.folder if self.first in (None, 0, 1) else self.path()

    def names(self) -> list[str]:
        """Names of the images in order; BadVideo where one is missing, or the folder has no numbering."""
        try:
            return numbering_of(os.listdir(self.folder)).run(self.first, self.frames)
        except (OSError, ValueError) as error:
            raise BadVideo(self.path(), in_words(error)) from error


def frame_range_of(path: Path) -> FrameRange | None:
    """What a path names that leads to a folder; None for any other path."""
    if path.is_dir():
        return FrameRange(path)
    match = _RANGE.fullmatch(str(path))
    if match is None or not os.path.isdir(match["folder"]):
        return None
    return FrameRange(Path(match["folder"]), int(match["first"]) if match["first"] else None, int(match["frames"]))


def is_there(path: Path) -> bool:
    """Whether a video, or what it lies in, exists: a file, a shard, or a folder."""
    return file_of(path).is_file() or frame_range_of(path) is not None


def source_state(path: Path) -> tuple[int, int]:
    """Bytes, and the time of the last change in ns, of the file or of all images that a video is read from.

    OSError where there is none.
    """
    images = frame_range_of(path)
    if images is None:
        facts = os.stat(file_of(path))
        return facts.st_size, facts.st_mtime_ns
    try:
        found = [os.stat(images.folder / name) for name in images.names()]
    except BadVideo:  # reading it says what is wrong
        found = []
    changed = max(one.st_mtime_ns for one in [os.stat(images.folder), *found])
    return sum(one.st_size for one in found), changed
