"""Images whose names end in a number, such as `img_00001.jpg`: which of them belong together, and in which order."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

IMAGE_EXTENSIONS: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
USUAL_PREFIX: Final = "img_"
"""The colour frames, where a folder has several numberings: optical flow often lies beside them."""
_NAME: Final = re.compile(r"(?P<prefix>.*?)(?P<number>[0-9]+)(?P<extension>\.[^.]+)", re.DOTALL)
_WEBP_HEADER_BYTES: Final = 21
_WEBP_MOVES: Final = 2


@dataclass
class Numbering:
    """Images that differ in their number only; `names` has each by its number."""

    prefix: str
    extension: str
    names: dict[int, str] = field(default_factory=dict)

    def name(self, number: int) -> str:
        """What the image of this number is or would be called."""
        first = self.names[min(self.names)]
        digits = len(first) - len(self.prefix) - len(self.extension)
        return self.names.get(number, f"{self.prefix}{number:0{digits}d}{self.extension}")

    def run(self, first: int | None, count: int | None) -> list[str]:
        """Names of `count` images from number `first` on: by default of all, from the lowest number to the highest.

        ValueError that names an image which is missing in between.
        """
        start = min(self.names) if first is None else first
        stop = max(max(self.names) + 1, start + 1) if count is None else start + count
        present = sum(start <= number < stop for number in self.names)
        if present < stop - start:
            missing = next(number for number in range(start, stop) if number not in self.names)
            most = ", as most numbers are: images that are no video?" if 2 * present < stop - start else ""
            raise ValueError(f"{self.name(missing)} is missing{most}")
        return [self.names[number] for number in range(start, stop)]


def images(names: Iterable[str]) -> list[str]:
    """The names of images, without hidden files."""
    return [name for name in names if not name.startswith(".") and _extension(name) in IMAGE_EXTENSIONS]


def numbering_of(names: Iterable[str]) -> Numbering:
    """The numbering that images in a folder with these names have; other images and files do not count.

    Of several, that of `img_00001.jpg` is taken. ValueError where there is none, it cannot be told which one, or two
    images have the same number.
    """
    found: dict[tuple[str, str], Numbering] = {}
    for name in sorted(images(names)):
        match = _NAME.fullmatch(name)
        if match is not None:
            key = match["prefix"], match["extension"].lower()
            one = found.setdefault(key, Numbering(match["prefix"], match["extension"]))
            other = one.names.setdefault(int(match["number"]), name)
            if other != name:
                raise ValueError(f"{other} and {name} have the same number")
    if not found:
        raise ValueError("a folder without numbered images, such as img_00001.jpg")
    usual = [one for one in found.values() if one.prefix == USUAL_PREFIX]
    chosen = usual or list(found.values())
    if len(chosen) > 1:
        first, second = sorted(min(one.names.values()) for one in chosen)[:2]
        raise ValueError(f"images with several numberings, such as {first} and {second}; keep one of them in a folder")
    return chosen[0]


def is_frame_folder(folder: Path, names: Collection[str], *, video_extensions: Collection[str]) -> bool:
    """Whether what lies in a folder says that it is one video: numbered images, no other images, no videos.

    Numbered `.webp` files count as images where the first of them does not move.
    """
    found = images(names)
    if not found or any(_NAME.fullmatch(name) is None for name in found):
        return False
    still = set(found)
    if any(_extension(name) in video_extensions for name in names if name not in still and not name.startswith(".")):
        return False
    webp = min((name for name in found if _extension(name) == ".webp"), default=None)
    return webp is None or not moves(folder / webp)


def _extension(name: str) -> str:
    stem, dot, extension = name.rpartition(".")
    return f".{extension.lower()}" if dot and stem else ""


def moves(path: Path) -> bool:
    """Whether a WebP file states that it holds an animation (flag A of its VP8X chunk)."""
    try:
        with path.open("rb") as file:
            header = file.read(_WEBP_HEADER_BYTES)
    except OSError:
        return False
    return header[8:16] == b"WEBPVP8X" and len(header) == _WEBP_HEADER_BYTES and bool(header[20] & _WEBP_MOVES)


STILL_EXTENSIONS: Final = IMAGE_EXTENSIONS | {".tif", ".tiff"}


def is_still(path: Path) -> bool:
    """Whether a path names an image file; a WebP file that holds an animation is a video."""
    extension = path.suffix.lower()
    if extension not in STILL_EXTENSIONS or path.is_dir():
        return False
    return extension != ".webp" or not moves(path)
