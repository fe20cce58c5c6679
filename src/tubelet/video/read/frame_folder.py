"""A folder of numbered images as a video: the images in the order of their numbers are its frames.

Only wanted images are opened. They are decoded by FFmpeg, through PyAV, as the frames of video files are: to the same
colours, turned upright as their EXIF says (mirrored ones are turned only, as FFmpeg reports no more), scaled in the
same way. What FFmpeg takes for damage in an image is an error here.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

import av
import numpy as np
from jaxtyping import Float64, Int64, UInt8

from tubelet.video.read.errors import FFMPEG_ERRORS, BadVideo, in_words
from tubelet.video.read.frame_range import FrameRange
from tubelet.video.read.info import VideoInfo, between
from tubelet.video.read.limits import Clock, Limits
from tubelet.video.read.pixels import UprightRgb, quarter_turns, rotation_degrees

FRAMES_A_SECOND: Final = 30
"""Images do not say when they are shown; this is what seconds are counted by."""
_BYTES_A_PIXEL: Final = 8  # a file of more than that for each pixel allowed is not read
_DECODERS: Final = ((b"\xff\xd8", "mjpeg"), (b"\x89PNG", "png"), (b"RIFF", "webp"), (b"BM", "bmp"))


class FrameFolder:
    """An open folder of images, with the interface of `VideoFile`; use `open_video`.

    Raises BadVideo that names the image for one that is missing, damaged, or of another size than those read before.
    """

    def __init__(self, images: FrameRange, limits: Limits) -> None:
        self.path, self._folder, self._limits = images.path(), images.folder, limits
        self._clock = Clock(self.path, limits)
        self._names = images.names()
        if not self._names:
            raise BadVideo(self.path, "no frames")
        if len(self._names) > limits.frames:
            raise BadVideo(self.path, f"more than {limits.frames} frames")
        self._size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self._names)

    @cached_property
    def seconds(self) -> Float64[np.ndarray, " N"]:
        """When each frame is shown, seconds after the first, at `FRAMES_A_SECOND`."""
        return np.arange(len(self), dtype=np.float64) / FRAMES_A_SECOND

    @cached_property
    def info(self) -> VideoInfo:
        """Facts of the folder, and of its first image, which is decoded."""
        frame, codec = self._decode(0)
        turned = quarter_turns(rotation_degrees(frame)) % 2
        return VideoInfo(
            frames=len(self),
            fps=float(FRAMES_A_SECOND),
            duration_seconds=len(self) / FRAMES_A_SECOND,
            width=frame.height if turned else frame.width,
            height=frame.width if turned else frame.height,
            rotation=rotation_degrees(frame),
            codec=codec,
        )

    def frames(
        self, indices: Sequence[int] | Int64[np.ndarray, " T"], *, short_side: int | None = None
    ) -> UInt8[np.ndarray, "T H W 3"]:
        """RGB frames by index from 0, in any order, repeats allowed; `short_side` (pixels) scales larger ones down."""
        wanted, places = np.unique(np.asarray(indices, dtype=np.int64), return_inverse=True)
        if len(wanted) == 0 or wanted[0] < 0 or wanted[-1] >= len(self):
            raise IndexError(f"{self.path}: frames {wanted[:1]}..{wanted[-1:]} of {len(self)}")
        rgb = UprightRgb((0, 0), wanted.tolist(), short_side=short_side)
        for number in wanted.tolist():
            frame, _ = self._decode(number)
            try:
                rgb.put(number, frame)
            except FFMPEG_ERRORS as error:
                raise self._bad(number, in_words(error)) from error
        return rgb.array if np.array_equal(places, np.arange(len(wanted))) else rgb.array[places]

    def between(self, start_seconds: float, end_seconds: float) -> tuple[int, int]:
        """The first frame shown from `start_seconds` on, and the first one from `end_seconds` on."""
        return between(self.seconds, start_seconds, end_seconds)

    def decoded(self) -> Iterator[Any]:
        """All images in order, as PyAV's frames."""
        for number in range(len(self)):
            yield self._decode(number)[0]

    def sweep(self, *, short_side: int | None = None) -> FolderSweep:
        """To read a few frames at a time; `VideoFile` says when that is of use."""
        return FolderSweep(self, short_side=short_side)

    def check(self) -> int:
        """Decode every image and return how many there are; BadVideo for the first that is bad."""
        return sum(1 for _ in self.decoded())

    def close(self) -> None:
        """Nothing is kept open."""

    def _decode(self, number: int) -> tuple[Any, str]:
        """An image as PyAV's frame, and what decoded it."""
        self._clock.check()
        try:
            frame, codec = self._decode_file(self._folder / self._names[number])
        except av.error.ArgumentError as error:
            raise self._bad(number, f"cannot be decoded; has it more than {self._limits.pixels} pixels?") from error
        except FFMPEG_ERRORS as error:
            raise self._bad(number, in_words(error)) from error
        size = (frame.width, frame.height)
        if self._size is None:
            self._size = size
        if size != self._size:
            raise self._bad(number, "{}x{} pixels, but images before it have {}x{}".format(*size, *self._size))
        return frame, codec

    def _decode_file(self, path: Path) -> tuple[Any, str]:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):  # opening a pipe waits for its writer, for ever
            raise ValueError("not a file")
        if facts.st_size > _BYTES_A_PIXEL * self._limits.pixels:
            raise ValueError(f"a file of {facts.st_size} bytes; at most {self._limits.pixels} pixels are read")
        data = path.read_bytes()
        codec = next((name for start, name in _DECODERS if data.startswith(start)), None)
        if codec is None:
            raise ValueError("not a JPEG, PNG, WebP or BMP image" if data else "an empty file")
        decoder: Any = av.CodecContext.create(codec, "r")
        decoder.thread_type, decoder.thread_count = "NONE", 1
        decoder.options = {"max_pixels": str(self._limits.pixels), "err_detect": "crccheck+explode"}
        frames = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
        if not frames or frames[0].is_corrupt:
            raise ValueError("no image can be decoded")
        return frames[0], codec

    def _bad(self, number: int, reason: str) -> BadVideo:
        return BadVideo(self.path, f"{self._names[number]}: {reason}", number)


@runtime_checkable
class Images(Protocol):
    """What gives images by index, each on its own."""

    def frames(
        self, indices: Int64[np.ndarray, " T"], *, short_side: int | None = None
    ) -> UInt8[np.ndarray, "T H W 3"]: ...


class FolderSweep:
    """Gives wanted frames call by call, as `Sweep` does for files; images have no order in which they are quicker."""

    def __init__(self, folder: Images, *, short_side: int | None) -> None:
        self._folder, self._short_side = folder, short_side

    def frames(self, wanted: Int64[np.ndarray, " K"]) -> UInt8[np.ndarray, "K H W 3"]:
        """These frames, in ascending order without repeats."""
        return self._folder.frames(wanted, short_side=self._short_side)
