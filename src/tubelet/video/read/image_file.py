"""An image file as a video of one frame, read by Pillow.

The image becomes upright RGB as a viewer shows it: turned and mirrored as its EXIF says; grey, palette and CMYK images
in colour; of 16 bits a channel the upper 8; what is see-through lies on white. Of a file with several pictures it is
the first. A JPEG that is to become much smaller is decoded at a half, a quarter or an eighth of its size, never at
less than twice the wanted one.
"""

from __future__ import annotations

import stat
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float64, Int64, UInt8
from PIL import Image, UnidentifiedImageError

from tubelet.video.read.errors import FFMPEG_ERRORS, BadVideo, in_words
from tubelet.video.read.frame_folder import FolderSweep
from tubelet.video.read.info import VideoInfo, between
from tubelet.video.read.limits import Clock, Limits
from tubelet.video.read.pixels import shrink

FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
"""Told by a file's first bytes, whatever its name says: ImageNet has a PNG called `.JPEG`."""
_ERRORS: Final = (
    *FFMPEG_ERRORS, SyntaxError, EOFError, TypeError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
_ORIENTATION: Final = 0x0112
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DEGREES: Final = {3: 180, 5: 90, 6: -90, 7: -90, 8: 90}  # counter-clockwise; 5 and 7 mirror first
_SEE_THROUGH: Final = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})

warnings.filterwarnings("ignore", module=r"PIL\.")  # about odd files, on stderr; ours carry the file's name
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # `Limits` has its own bound


class ImageFile:
    """An image with the interface of `VideoFile`; use `open_video`. BadVideo where it cannot be read."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path, self._limits = path, limits
        self._clock = Clock(path, limits)

    def __len__(self) -> int:
        return 1

    @property
    def seconds(self) -> Float64[np.ndarray, " N"]:
        """The one frame is shown at 0."""
        return np.zeros(1, dtype=np.float64)

    @cached_property
    def info(self) -> VideoInfo:
        """Facts from the file's header; it has no rate and no length."""
        with self._open() as image:
            turn = _orientation(image)
            width, height = image.size if turn < 5 else image.size[::-1]
            codec = (image.format or "").lower()
        return VideoInfo(
            frames=1,
            fps=0.0,
            duration_seconds=0.0,
            width=width,
            height=height,
            rotation=_DEGREES.get(turn, 0),
            codec=codec,
        )

    def frames(
        self, indices: Sequence[int] | Int64[np.ndarray, " T"], *, short_side: int | None = None
    ) -> UInt8[np.ndarray, "T H W 3"]:
        """The image as often as asked for, all indices being 0; `short_side` (pixels) scales a larger one down."""
        wanted = np.asarray(indices, dtype=np.int64)
        if len(wanted) == 0 or wanted.any():
            raise IndexError(f"{self.path}: frames {wanted[:2].tolist()} of 1")
        with self._open() as image:
            turn = _UPRIGHT.get(_orientation(image))
            small = _small(image, shrink(image.size, short_side))
            picture = np.array(small if turn is None else small.transpose(turn))[None]
        self._clock.check()
        return picture if len(wanted) == 1 else picture.repeat(len(wanted), axis=0)

    def between(self, start_seconds: float, end_seconds: float) -> tuple[int, int]:
        """The first frame shown from `start_seconds` on, and the first one from `end_seconds` on."""
        return between(self.seconds, start_seconds, end_seconds)

    def sweep(self, *, short_side: int | None = None) -> FolderSweep:
        """To read a few frames at a time; `VideoFile` says when that is of use."""
        return FolderSweep(self, short_side=short_side)

    def check(self) -> int:
        """Decode the image; BadVideo where that fails."""
        return len(self.frames([0]))

    def close(self) -> None:
        """Nothing is kept open."""

    @contextmanager
    def _open(self) -> Iterator[Image.Image]:
        """Pillow's image, not decoded yet; what goes wrong inside is a BadVideo."""
        try:
            if not stat.S_ISREG(self.path.stat().st_mode):  # opening a pipe waits for its writer, for ever
                raise ValueError("not a file")
            with Image.open(self.path, formats=FORMATS) as image:
                width, height = image.size
                if width * height > self._limits.pixels:
                    raise ValueError(f"{width}x{height} pixels; at most {self._limits.pixels} pixels are read")
                if image.format == "TIFF":
                    image.load()  # Pillow turns a TIFF itself when it loads it, and no other image
                yield image
        except UnidentifiedImageError as error:
            raise BadVideo(self.path, self._not_one()) from error
        except _ERRORS as error:
            raise BadVideo(self.path, in_words(error) if isinstance(error, Exception) else "damaged") from error

    def _not_one(self) -> str:
        return "not an image (JPEG, PNG, WebP, BMP, TIFF)" if self.path.stat().st_size else "an empty file"


def _orientation(image: Image.Image) -> int:
    """EXIF's number, 1 (upright) to 8; 1 where there is none or nonsense."""
    found = 1 if image.format == "TIFF" else image.getexif().get(_ORIENTATION, 1)
    return found if found in _UPRIGHT else 1


def _small(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """RGB of this (width, height), still turned as stored."""
    if size == image.size:
        return _rgb(image)
    if image.format == "JPEG":
        image.draft(None, (2 * size[0], 2 * size[1]))
    return _rgb(image).resize(size, Image.Resampling.BILINEAR)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        image.load()
        return image
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        deep: Any = np.asarray(image).astype(np.int64)
        return Image.fromarray((deep >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of 32 bits, which do not say what is white (Pillow's mode {image.mode})")
    if image.mode in _SEE_THROUGH or "transparency" in image.info:
        page = Image.new("RGBA", image.size, "white")
        page.alpha_composite(image.convert("RGBA"))
        return page.convert("RGB")
    return image.convert("RGB")
