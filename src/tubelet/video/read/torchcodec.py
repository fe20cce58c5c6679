"""Frames through torchcodec, on the processor or on NVIDIA's decoder (NVDEC): the same frames as in `file`.

torchcodec (BSD-3) is optional. It needs FFmpeg's shared libraries on the machine, 4 to 8, which PyAV's wheels carry for
themselves only. Frame i is the i-th in the order of presentation, as torchcodec's exact mode has it, which reads all
packets on opening. It says less than PyAV about damaged files: some that PyAV refuses come back with frames made up.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from tubelet.video.read.byte_range import ByteRangeReader, byte_range_of, file_of
from tubelet.video.read.errors import BadVideo, damage
from tubelet.video.read.info import VideoInfo, between_at_rate
from tubelet.video.read.limits import Limits
from tubelet.video.read.pixels import shrink


class TorchcodecFile:
    """An open file; use `open_with_torchcodec`. `device` is "cpu" or "cuda". Raises BadVideo for damaged files."""

    def __init__(self, path: Path, *, limits: Limits, device: str) -> None:
        self.path, self._limits, self._device = path, limits, device
        with damage(path, "cannot be opened as a video"):
            if not stat.S_ISREG(os.stat(file_of(path)).st_mode):
                raise BadVideo(path, "not a file")
        inside = byte_range_of(path)
        self._range = None if inside is None else ByteRangeReader(inside)
        self._decoder = self._open(None)
        if len(self) == 0:
            raise BadVideo(path, "no frame can be decoded")
        width, height = self._size
        if width * height > limits.pixels or len(self) > limits.frames:
            raise BadVideo(path, f"{len(self)} frames of {width}x{height} pixels are more than is read")

    def __len__(self) -> int:
        return len(self._decoder)

    @cached_property
    def info(self) -> VideoInfo:
        """Facts of the file, from its headers and packets."""
        metadata = self._decoder.metadata
        width, height = self._size
        return VideoInfo(
            frames=len(self),
            fps=float(metadata.average_fps or 0.0),
            duration_seconds=float(metadata.duration_seconds or 0.0),
            width=width,
            height=height,
            rotation=round(metadata.rotation or 0),
            codec=str(metadata.codec),
        )

    def frames(
        self, indices: Sequence[int] | Int64[np.ndarray, " T"], *, short_side: int | None = None
    ) -> UInt8[np.ndarray, "T H W 3"]:
        """RGB frames by index, in any order, repeats allowed; `short_side` (pixels) scales larger frames down.

        At the stored size these are PyAV's bytes, for H.264 with 8 bits. Scaled, they differ by about one level on
        average: torchcodec makes RGB first and scales that.
        """
        order = np.asarray(indices, dtype=np.int64)
        if len(order) == 0 or order.min() < 0 or order.max() >= len(self):
            raise IndexError(f"{self.path}: frames {order.min(initial=0)}..{order.max(initial=0)} of {len(self)}")
        size = shrink(self._size, short_side)
        with damage(self.path, "damaged"), _plain_words():
            decoder = self._decoder if size == self._size else self._open((size[1], size[0]))
            wanted, places = np.unique(order, return_inverse=True)
            data = decoder.get_frames_at(wanted.tolist()).data.cpu().numpy()
        found: UInt8[np.ndarray, "T H W 3"] = (
            data if len(wanted) == len(order) and (wanted == order).all() else data[places]
        )
        return found

    def between(self, start_seconds: float, end_seconds: float) -> tuple[int, int]:
        """The first frame from `start_seconds` on, and the first one from `end_seconds` on, at the mean rate."""
        if self.info.fps <= 0:
            raise BadVideo(self.path, "cannot be cut: it states no frame rate")
        return between_at_rate(self.info.fps, len(self), start_seconds, end_seconds)

    def close(self) -> None:
        """Give the file back."""
        del self._decoder
        if self._range is not None:
            self._range.close()

    @property
    def _size(self) -> tuple[int, int]:
        """Width and height of the upright frames."""
        metadata = self._decoder.metadata
        width, height = metadata.width or 0, metadata.height or 0
        return width, height

    def _open(self, size: tuple[int, int] | None) -> Any:
        """A decoder; with `size`, (height, width), one that scales."""
        from torchcodec.decoders import VideoDecoder
        from torchcodec.transforms import Resize

        with damage(self.path, "cannot be opened as a video"), _plain_words():
            if self._range is not None:
                self._range.seek(0)
            return VideoDecoder(
                self._range or str(self.path),
                dimension_order="NHWC",
                num_ffmpeg_threads=1,
                device=self._device,
                transforms=None if size is None else [Resize(size)],
            )


@contextmanager
def open_with_torchcodec(
    path: Path | str, *, limits: Limits = Limits(), device: str = "cpu"
) -> Iterator[TorchcodecFile]:
    """Open a video for reading; the file is closed on leaving. BadVideo where it cannot be read."""
    video = TorchcodecFile(Path(path), limits=limits, device=device)
    try:
        yield video
    finally:
        video.close()


def why_missing(*, cuda: bool) -> str | None:
    """Why torchcodec, on a GPU if `cuda`, cannot be used on this machine, in one line; None where it can."""
    try:
        import torch
        import torchcodec.decoders  # noqa: F401
    except ImportError:
        return "torchcodec is not installed; pip install torchcodec (0.12 and 0.13 run with a CPU build of torch)"
    except (RuntimeError, OSError):
        return (
            "torchcodec is installed but does not load; it needs FFmpeg's shared libraries, such as apt install ffmpeg"
        )
    return "there is no NVIDIA GPU here; use pyav or torchcodec" if cuda and not torch.cuda.is_available() else None


@contextmanager
def _plain_words() -> Iterator[None]:
    """torchcodec's messages without its function, its source file and the path."""
    try:
        yield
    except RuntimeError as error:
        text = re.sub(r"^\w+, \S+:\d+, ", "", str(error))
        text = re.sub(r"^Could not open input file: .* (?=[A-Z])", "", text)
        raise RuntimeError((text[:1].lower() + text[1:]).rstrip(".")) from error
