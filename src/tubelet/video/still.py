"""Which files are images that stand for themselves: a video of one frame each (`tubelet.video.image_file`)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tubelet.video.numbered import IMAGE_EXTENSIONS, moves

STILL_EXTENSIONS: Final = IMAGE_EXTENSIONS | {".tif", ".tiff"}


def is_still(path: Path) -> bool:
    """Whether a path names an image file; a WebP file that holds an animation is a video."""
    extension = path.suffix.lower()
    if extension not in STILL_EXTENSIONS or path.is_dir():
        return False
    return extension != ".webp" or not moves(path)
