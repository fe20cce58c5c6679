"""Exact frames from video files, through PyAV (FFmpeg): the only module that decodes video.

Frame i is the i-th frame in the order of presentation, exactly as decoding the whole file from its start gives it.
Where the packets carry presentation times, decoding starts at the key frame before the wanted frame and stops after it.
Every decoded frame must then come at the time that the packets promised; else the file is decoded from its start.
A call that wants later frames than the one before goes on where that one stopped, so reading forwards is one pass.
Only wanted frames are converted to RGB. Rotation metadata is applied. Non-square pixels stay as they are stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from jaxtyping import Float64, Int64, UInt8

from tubelet.video.errors import FFMPEG_ERRORS, BadVideo, damage, in_words
from tubelet.video.packets import PacketIndex, packet_index
from tubelet.video.pixels import UprightRgb, quarter_turns, rotation_degrees

av.logging.set_level(av.logging.PANIC)  # FFmpeg writes its own complaints to stderr; ours carry the file's name

__all__ = ["BadVideo", "VideoFile", "VideoInfo", "frames", "open_video", "probe"]


@dataclass(frozen=True)
class VideoInfo:
    """Facts of a file. `width` and `height` are those of the upright frames; `rotation` is what the file states, in
    degrees counter-clockwise; `fps` is the mean rate (0 for a single frame without a rate)."""

    frames: int
    fps: float
    duration_seconds: float
    width: int
    height: int
    rotation: int
    codec: str


@dataclass
class _Stopped:
    """Where decoding stopped: the key frame it began at, the number of the next frame, and what gives it."""

    start: int
    following: int
    frames: Iterator[tuple[int, Any]]


class VideoFile:
    """An open file; use `open_video`. Raises BadVideo for anything a damaged file does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._container: Any = None
        self._stream: Any = None
        self._index: PacketIndex | None = None
        self._stopped: _Stopped | None = None
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
            _, frame = next(self._decode_plain(), (0, None))
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
            codec=self._stream.codec_context.codec.canonical_name,
        )

    def frames(
        self, indices: Sequence[int] | Int64[np.ndarray, " T"], *, short_side: int | None = None
    ) -> UInt8[np.ndarray, "T H W 3"]:
        """RGB frames by index, in any order, repeats allowed; `short_side` (pixels) scales larger frames down."""
        order = np.asarray(indices, dtype=np.int64)
        wanted = np.unique(order)
        if len(wanted) == 0 or wanted[0] < 0 or wanted[-1] >= len(self):
            raise IndexError(f"{self.path}: frames {wanted[:1]}..{wanted[-1:]} of {len(self)}")
        picked = self._pick(wanted, short_side)
        return np.stack([picked[index] for index in order.tolist()])

    def check(self) -> int:
        """Decode the whole file and return the number of frames; BadVideo where it ends in an error."""
        return len(self._times_by_decoding())

    def close(self) -> None:
        """Give the file and FFmpeg's buffers back. Open containers are what makes PyAV loaders grow."""
        self._stopped = None
        if self._container is not None:
            self._container.close()
        self._container = self._stream = None

    def _scan(self) -> None:
        with damage(self.path, "cannot be opened as a video"):
            self._open()
            stream = self._stream
            self._size = (stream.codec_context.width, stream.codec_context.height)
            self._rate = float(stream.average_rate or stream.guessed_rate or 0)
            self._base = float(stream.time_base or 0)
            self._index = packet_index(self._container, stream)
        self._seconds = self._times_by_decoding() if self._index is None else _seconds(self._index.times, self._base)

    def _open(self) -> None:
        self.close()
        self._container = av.open(str(self.path), metadata_errors="ignore")
        self._stream = self._container.streams.best("video")
        if self._stream is None or self._stream.codec_context is None:
            raise BadVideo(self.path, "no video stream")
        self._stream.thread_type = "NONE"
        self._stream.codec_context.thread_count = 1

    def _pick(self, wanted: Int64[np.ndarray, " K"], short_side: int | None) -> dict[int, UInt8[np.ndarray, "H W 3"]]:
        if self._index is not None:
            try:
                return self._pick_by_seeking(self._index, wanted, UprightRgb(self._size, short_side=short_side))
            except (*FFMPEG_ERRORS, _OutOfStep):
                self._distrust_packets(int(wanted[-1]))
        return self._pick_plainly(wanted, short_side)

    def _distrust_packets(self, last: int) -> None:
        promised = len(self)
        self._index = None
        self._seconds = self._times_by_decoding()
        if last >= len(self):
            raise BadVideo(self.path, f"only {len(self)} of {promised} frames can be decoded")

    def _pick_by_seeking(
        self, index: PacketIndex, wanted: Int64[np.ndarray, " K"], rgb: UprightRgb
    ) -> dict[int, UInt8[np.ndarray, "H W 3"]]:
        starts = [index.start(frame) for frame in wanted.tolist()]
        picked: dict[int, UInt8[np.ndarray, "H W 3"]] = {}
        for start in sorted(set(starts)):
            group = {frame for frame, its_start in zip(wanted.tolist(), starts, strict=True) if its_start == start}
            for number, frame in self._numbered(index, start, first=min(group)):
                if number in group:
                    picked[number] = rgb(frame)
                if number >= max(group):
                    break
            if not group <= picked.keys():
                raise _OutOfStep
        return picked

    def _numbered(self, index: PacketIndex | None, start: int, *, first: int) -> Iterator[tuple[int, Any]]:
        """Frames up to `first` and on: from where the last call stopped, if that lies on the way, else from `start`."""
        here, self._stopped = self._stopped, None
        if here is None or here.start != start or here.following > first:
            here = _Stopped(start, 0, self._decode_plain() if index is None else self._decode_from(index, start))
        for number, frame in here.frames:
            here.following = number + 1
            self._stopped = here  # stays where the caller takes no more
            yield number, frame
            self._stopped = None

    def _decode_from(self, index: PacketIndex, start: int) -> Iterator[tuple[int, Any]]:
        """Frames from a key frame on, with their numbers; _OutOfStep as soon as one comes at an unexpected time."""
        first_time = index.key_times[start]
        number = index.first_frame(start)
        for packet in self._packets_from(index, start):
            for frame in packet.decode():
                if start > 0 and frame.pts is not None and frame.pts < first_time:
                    continue  # shown before the key frame: decoded from references that were skipped
                if number >= len(index.times) or frame.pts != index.times[number]:
                    raise _OutOfStep
                yield number, frame
                number += 1

    def _packets_from(self, index: PacketIndex, start: int) -> Iterator[Any]:
        """Packets from a key frame on. A seek that lands too late is replaced by reading from the start."""
        key_time, key_position = int(index.key_times[start]), int(index.key_positions[start])
        if start > 0 and "444" in (self._stream.codec_context.pix_fmt or ""):
            # Old x264 coded 4:4:4 its own way and says so in the first packet only, which the decoder must have seen.
            self._open()
            next(self._container.demux(self._stream)).decode()
        self._container.seek(key_time, stream=self._stream)
        packets = self._container.demux(self._stream)
        packet = next(packets, None)
        if packet is None or index.position.get(packet.pts, key_position + 1) > key_position:
            self._open()
            packets = self._container.demux(self._stream)
            packet = next(packets, None)
        while packet is not None and packet.pts != key_time:
            packet = next(packets, None)
        if packet is None:
            raise _OutOfStep
        yield packet
        yield from packets

    def _pick_plainly(
        self, wanted: Int64[np.ndarray, " K"], short_side: int | None
    ) -> dict[int, UInt8[np.ndarray, "H W 3"]]:
        ask, last = set(wanted.tolist()), int(wanted[-1])
        picked: dict[int, UInt8[np.ndarray, "H W 3"]] = {}
        rgb: UprightRgb | None = None
        with damage(self.path, "damaged"):
            for number, frame in self._numbered(None, 0, first=int(wanted[0])):
                size = self._size if min(self._size) else (frame.width, frame.height)
                rgb = rgb or UprightRgb(size, short_side=short_side)
                if number in ask:
                    picked[number] = rgb(frame)
                if number >= last:
                    return picked
        raise BadVideo(self.path, f"only {len(picked)} of {len(ask)} wanted frames can be decoded")

    def _decode_plain(self) -> Iterator[tuple[int, Any]]:
        self._open()
        yield from enumerate(self._container.decode(self._stream))

    def _times_by_decoding(self) -> Float64[np.ndarray, " N"]:
        times: list[int | None] = []
        try:
            for _, frame in self._decode_plain():
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
def open_video(path: Path | str) -> Iterator[VideoFile]:
    """Open a video for reading; the file is closed on leaving. BadVideo where it cannot be read."""
    video = VideoFile(Path(path))
    try:
        yield video
    finally:
        video.close()


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


class _OutOfStep(Exception):  # noqa: N818
    """Decoding did not give the frames that the packets promised."""


def _seconds(times: Int64[np.ndarray, " N"], base: float) -> Float64[np.ndarray, " N"]:
    return np.asarray((times - times[0]) * base, dtype=np.float64)
