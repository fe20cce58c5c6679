"""Exact frames from video files, through PyAV (FFmpeg).

Frame i is the i-th frame in the order of presentation, exactly as decoding the whole file from its start gives it.
Where the packets carry presentation times, decoding starts at the key frame before the wanted frame, leaves out what
nothing needs (`tubelet.video.read.seek`), and stops after it. Every decoded frame must then come at the time that the
packets promised, and undamaged; else more is decoded, in the end all from the start. (In a damaged file whose damage
the decoder does not report, a frame may still differ from that of a full decode; it is the same one each time.)
Only wanted frames are converted to RGB. Rotation metadata is applied. Non-square pixels stay as they are stored.

A folder of numbered images is read by `frame_folder`, a single image by `image_file`; `open_video` tells which it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from tubelet.video.read.errors import FFMPEG_ERRORS, BadVideo, damage, in_words
from tubelet.video.read.frame_folder import FrameFolder
from tubelet.video.read.frame_range import frame_range_of
from tubelet.video.read.image_file import ImageFile
from tubelet.video.read.info import VideoInfo, between
from tubelet.video.read.limits import Limits
from tubelet.video.read.numbered import is_still
from tubelet.video.read.opened import Opened
from tubelet.video.read.packets import PacketIndex, packet_index
from tubelet.video.read.pixels import UprightRgb, quarter_turns, rotation_degrees
from tubelet.video.read.seek import OutOfStep, fetch, fetch_all_between
from tubelet.video.read.sweep import Sweep

__all__ = ["BadVideo", "VideoFile", "VideoInfo", "frames", "open_video", "probe"]


class VideoFile:
    """An open file; use `open_video`. Raises BadVideo for anything a damaged file does."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path = path
        self._file = Opened(path, limits)
        self._index: PacketIndex | None = None
        try:
            self._scan()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._seconds)

    @property
    def seconds(self) -> Float64[np.ndarray, " N"]:
        """When each frame is shown, seconds after the first."""
        return self._seconds

    @cached_property
    def info(self) -> VideoInfo:
        """Facts of the file; decodes the first frame, because only frames know their rotation."""
        with damage(self.path, "the first frame cannot be decoded"):
            _, frame = next(self._file.decoded(), (0, None))
        if frame is None:
            raise BadVideo(self.path, "no frame can be decoded")
        turned = quarter_turns(rotation_degrees(frame)) % 2
        width, height = self._size if min(self._size) else (frame.width, frame.height)
        return VideoInfo(
            frames=len(self),
            fps=self._fps(),
            duration_seconds=self._duration_seconds(),
            width=height if turned else width,
            height=width if turned else height,
            rotation=rotation_degrees(frame),
            codec=self._file.stream.codec_context.codec.canonical_name,
        )

    def frames(
        self, indices: Sequence[int] | Int64[np.ndarray, " T"], *, short_side: int | None = None
    ) -> UInt8[np.ndarray, "T H W 3"]:
        """RGB frames by index, in any order, repeats allowed; `short_side` (pixels) scales larger frames down."""
        wanted, places = np.unique(np.asarray(indices, dtype=np.int64), return_inverse=True)
        if len(wanted) == 0 or wanted[0] < 0 or wanted[-1] >= len(self):
            raise IndexError(f"{self.path}: frames {wanted[:1]}..{wanted[-1:]} of {len(self)}")
        picked = self._pick(wanted, short_side)
        return picked if np.array_equal(places, np.arange(len(wanted))) else picked[places]

    def between(self, start_seconds: float, end_seconds: float) -> tuple[int, int]:
        """The first frame shown from `start_seconds` on, and the first one from `end_seconds` on."""
        return between(self.seconds, start_seconds, end_seconds)

    def sweep(self, *, short_side: int | None = None) -> Sweep:
        """To read the file forwards in one pass, a few frames at a time."""

        def plain(wanted: Int64[np.ndarray, " K"]) -> UInt8[np.ndarray, "K H W 3"]:
            return self.frames(wanted, short_side=short_side)

        return Sweep(self._file, self._index, plain, size=self._size, short_side=short_side)

    def check(self) -> int:
        """Decode the whole file and return the number of frames; BadVideo where it ends in an error."""
        return len(self._times_by_decoding())

    def close(self) -> None:
        """Give the file and FFmpeg's buffers back."""
        self._file.close()

    def _scan(self) -> None:
        with damage(self.path, "cannot be opened as a video"):
            self._file.open()
            stream = self._file.stream
            self._size = (stream.codec_context.width, stream.codec_context.height)
            self._rate = float(stream.average_rate or stream.guessed_rate or 0)
            self._base = float(stream.time_base or 0)
            self._index = packet_index(self._file)
        self._seconds = self._times_by_decoding() if self._index is None else _seconds(self._index.times, self._base)

    def _pick(self, wanted: Int64[np.ndarray, " K"], short_side: int | None) -> UInt8[np.ndarray, "K H W 3"]:
        """The frames by the cheapest way that works: what they need, all between, all from the start."""
        if self._index is not None:
            for way in (fetch, fetch_all_between):
                rgb = UprightRgb(self._size, wanted.tolist(), short_side=short_side)
                with suppress(*FFMPEG_ERRORS, OutOfStep):
                    way(self._file, self._index, wanted, rgb.put)
                    return rgb.array
                with damage(self.path, "damaged"):
                    self._file.open()  # a decoder remembers damage that it has seen
            self._distrust_packets(int(wanted[-1]))
        rgb = UprightRgb(self._size, wanted.tolist(), short_side=short_side)
        with damage(self.path, "damaged"):
            self._pick_from_start(wanted, rgb)
        if rgb.missing:
            raise BadVideo(self.path, f"only {len(wanted) - rgb.missing} of {len(wanted)} wanted frames can be decoded")
        return rgb.array

    def _pick_from_start(self, wanted: Int64[np.ndarray, " K"], rgb: UprightRgb) -> None:
        ask, last = set(wanted.tolist()), int(wanted[-1])
        for number, frame in self._file.decoded():
            if number in ask:
                rgb.put(number, frame)
            if number >= last:
                return

    def _distrust_packets(self, last: int) -> None:
        promised = len(self)
        self._index = None
        self._seconds = self._times_by_decoding()
        if last >= len(self):
            raise BadVideo(self.path, f"only {len(self)} of {promised} frames can be decoded")

    def _times_by_decoding(self) -> Float64[np.ndarray, " N"]:
        times: list[int | None] = []
        try:
            for _, frame in self._file.decoded():
                times.append(frame.pts)
        except FFMPEG_ERRORS as error:
            reason = (
                f"damaged: {in_words(error)} after {len(times)} good frames"
                if times
                else f"no frame can be decoded: {in_words(error)}"
            )
            raise BadVideo(self.path, reason, len(times)) from error
        if not times:
            raise BadVideo(self.path, "no frame can be decoded")
        known = [time for time in times if time is not None]
        if len(known) < len(times) or any(later <= sooner for sooner, later in pairwise(known)):
            return np.arange(len(times), dtype=np.float64) / (self._rate or 1.0)
        return _seconds(np.array(known, dtype=np.int64), self._base)

    def _fps(self) -> float:
        span = float(self._seconds[-1])
        return self._rate or ((len(self) - 1) / span if span > 0 else 0.0)

    def _duration_seconds(self) -> float:
        """From the first frame to the end of the last, which is taken to last as long as one frame on average."""
        rate = self._fps()
        return float(self._seconds[-1]) + (1 / rate if rate > 0 else 0.0)


@contextmanager
def open_video(path: Path | str, *, limits: Limits = Limits()) -> Iterator[VideoFile | FrameFolder | ImageFile]:
    """Open a video for reading; the file is closed on leaving. BadVideo where it cannot be read within `limits`.

    `path` may name a folder of numbered images, or some of them (`tubelet.video.read.frame_range`), or one image.
    """
    video = _opened(Path(path), limits)
    try:
        yield video
    finally:
        video.close()


def _opened(path: Path, limits: Limits) -> VideoFile | FrameFolder | ImageFile:
    if is_still(path):
        return ImageFile(path, limits)
    images = frame_range_of(path)
    return VideoFile(path, limits) if images is None else FrameFolder(images, limits)


def frames(
    path: Path | str, indices: Sequence[int] | Int64[np.ndarray, " T"], *, short_side: int | None = None
) -> UInt8[np.ndarray, "T H W 3"]:
    """RGB frames of a file by index in the order of presentation."""
    with open_video(path) as video:
        return video.frames(indices, short_side=short_side)


def probe(path: Path | str) -> VideoInfo:
    """Facts of a file."""
    with open_video(path) as video:
        return video.info


def _seconds(times: Int64[np.ndarray, " N"], base: float) -> Float64[np.ndarray, " N"]:
    return np.asarray((times - times[0]) * base, dtype=np.float64)
