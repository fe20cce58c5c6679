"""Decoded frames kept on disk, so that a small set is decoded once and not once an epoch."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import UInt8

from tubelet.disk.write import whole_file
from tubelet.names import writable
from tubelet.video.read.decoders import Reading, Video
from tubelet.video.read.frame_range import source_state
from tubelet.video.read.part import PartOfVideo, VideoPart, open_part

LARGEST_BYTES: Final = 512 * 2**20
"""A video whose frames take more is not cached but read from its file each time."""


class FrameCache:
    """All frames of each video as one array file, read through a memory map (the system shares it between workers).

    A file is found by the video's path, its size and time of change, and `short_side`, so a changed video is decoded
    anew and its old frames are deleted; a damaged array file is written anew. Files appear whole or not at all.
    ValueError where the folder cannot be written. A disk that fills up later stops the caching, not the run.
    """

    def __init__(self, folder: Path, *, short_side: int | None, reading: Reading = Reading()) -> None:
        self.folder, self.short_side, self._reading = Path(folder), short_side, reading
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"{folder}: the frame cache cannot be made here ({error.strerror})") from error
        if not os.access(self.folder, os.W_OK):
            raise ValueError(f"{folder}: the frame cache cannot be written here; choose another folder")

    def frames(self, path: Path, *, part: VideoPart | None = None) -> UInt8[np.ndarray, "N H W 3"] | None:
        """All frames, or those of a part, decoded now if need be; None where they are too many to keep.

        BadVideo as in `open_video`.
        """
        file = self.file(path, part=part)
        if file is None:
            with self._reading.open(path):  # says why
                return None
        kept = _load(file)
        if kept is not None:
            return kept
        with open_part(self._reading, path, part) as video:
            if self._bytes(video) > LARGEST_BYTES:
                return None
            decoded = video.frames(range(len(video)), short_side=self.short_side)
        self._keep(decoded, file)
        return decoded

    def file(self, path: Path, *, part: VideoPart | None = None) -> Path | None:
        """Where the frames of a video are kept; None where the video does not exist."""
        try:
            size, changed_ns = source_state(path)
        except OSError:
            return None
        way = "" if self._reading.decoder == "pyav" else f"\n{self._reading.decoder}"  # scaled frames differ a little
        piece = "" if part is None else f"\n{part.start_seconds}-{part.end_seconds}"
        text = writable(f"{os.path.abspath(path)}\n{self.short_side}{way}{piece}")
        name = hashlib.sha256(text.encode()).hexdigest()[:32]
        return self.folder / name[:2] / f"{name}-{changed_ns:x}-{size:x}.npy"

    def _bytes(self, video: Video | PartOfVideo) -> int:
        short = min(video.info.width, video.info.height)
        scale = 1.0 if self.short_side is None else min(1.0, self.short_side / short)
        return int(len(video) * video.info.width * video.info.height * 3 * scale**2)

    def _keep(self, frames: UInt8[np.ndarray, "N H W 3"], file: Path) -> None:
        with suppress(OSError):
            file.parent.mkdir(exist_ok=True)
            with whole_file(file) as temporary, temporary.open("wb") as out:
                np.save(out, frames, allow_pickle=False)
            for other in file.parent.glob(f"{file.name.split('-')[0]}-*.npy"):
                if other != file:
                    other.unlink(missing_ok=True)


def _load(file: Path) -> UInt8[np.ndarray, "N H W 3"] | None:
    try:
        frames: UInt8[np.ndarray, "N H W 3"] = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):  # not there yet, or cut short by a crash
        return None
    return frames if frames.dtype == np.uint8 and frames.ndim == 4 and len(frames) else None
