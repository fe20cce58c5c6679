"""Rows of frames with labels: as a still strip (PNG) and moving (GIF, MP4)."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from tubelet.eval.reconstruct import Reconstruction

Picture = UInt8[np.ndarray, "H W 3"]

SMALLEST_PIXELS: Final = 112
GAP_PIXELS: Final = 4
LETTERS_PIXELS: Final = 13
LINE_PIXELS: Final = LETTERS_PIXELS + 7
LABEL_PIXELS: Final = 104
PAPER: Final = 255
INK: Final = (40, 40, 40)


def rows_of(found: Reconstruction) -> tuple[tuple[str, UInt8[np.ndarray, "T H W 3"]], ...]:
    """Label and clip of each row."""
    masked = (f"{100 * found.hidden_ratio:.0f} % masked", found.masked)
    if found.truth is None:
        return (("original", found.original), masked, ("reconstructed", found.reconstructed))
    return (("original", found.original), masked, ("true", found.truth), ("predicted", found.reconstructed))


def strip(found: Reconstruction, *, frames: int = 8) -> Picture:
    """Labelled rows of frames spread over the clip, the note on colours below."""
    total = len(found.original)
    picked = np.unique(np.linspace(0, total - 1, min(frames, total)).round().astype(int))
    tiles = [(label, [enlarged(clip[i]) for i in picked]) for label, clip in rows_of(found)]
    height, width = tiles[0][1][0].shape[:2]
    canvas = _paper(
        LINE_PIXELS + len(tiles) * (height + GAP_PIXELS) + LINE_PIXELS,
        LABEL_PIXELS + len(picked) * (width + GAP_PIXELS),
    )
    words = [(LABEL_PIXELS + k * (width + GAP_PIXELS), 2, f"frame {i}") for k, i in enumerate(picked.tolist())]
    for row, (label, pictures) in enumerate(tiles):
        top = LINE_PIXELS + row * (height + GAP_PIXELS)
        words.append((4, top + height // 2 - LETTERS_PIXELS // 2, label))
        for column, picture in enumerate(pictures):
            left = LABEL_PIXELS + column * (width + GAP_PIXELS)
            canvas[top : top + height, left : left + width] = picture
    words.append((4, canvas.shape[0] - LINE_PIXELS, f"{found.note}; loss {found.loss:.3f}"))
    return lettered(canvas, words)


def side_by_side(found: Reconstruction) -> list[Picture]:
    """One picture per frame of the clip: the clips beside each other, labels above, the note below."""
    rows = rows_of(found)
    height, width = enlarged(found.original[0]).shape[:2]
    shown = []
    for moment in zip(*(clip for _, clip in rows), strict=True):
        canvas = _paper(_even(height + 2 * LINE_PIXELS), _even(len(rows) * (width + GAP_PIXELS)))
        for column, picture in enumerate(moment):
            left = column * (width + GAP_PIXELS)
            canvas[LINE_PIXELS : LINE_PIXELS + height, left : left + width] = enlarged(picture)
        words = [(column * (width + GAP_PIXELS) + 2, 2, label) for column, (label, _) in enumerate(rows)]
        shown.append(lettered(canvas, [*words, (2, canvas.shape[0] - LINE_PIXELS, found.note)]))
    return shown


def enlarged(picture: Picture) -> UInt8[np.ndarray, "_ _ 3"]:
    """Small pictures are repeated by a whole factor, so that cubes keep sharp edges."""
    factor = max(1, -(-SMALLEST_PIXELS // max(picture.shape[:2])))
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def lettered(canvas: Picture, words: Sequence[tuple[int, int, str]]) -> Picture:
    """The canvas with text at (left, top, text), in pixels; letters shrink until a line fits."""
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    for left, top, text in words:
        size = float(LETTERS_PIXELS)
        while size > 7 and left + draw.textlength(text, font=ImageFont.load_default(size)) > image.width:
            size -= 1
        draw.text((left, top), text, fill=INK, font=ImageFont.load_default(size))
    return np.asarray(image).copy()


def write_png(picture: Picture, path: Path) -> None:
    """Write one picture; OSError names the path."""
    _folder(path)
    Image.fromarray(picture).save(path, format="PNG", optimize=True)


def write_gif(pictures: Sequence[Picture], path: Path, *, fps: float = 8.0) -> None:
    """Write an endless GIF."""
    _folder(path)
    first, *rest = [Image.fromarray(picture) for picture in pictures]
    first.save(path, format="GIF", save_all=True, append_images=rest, duration=round(1000 / fps), loop=0)


def write_mp4(pictures: Sequence[Picture], path: Path, *, fps: int = 8, loops: int = 3) -> None:
    """Write H.264 that every player takes (yuv420p, even sizes); the clip is short, so it is shown `loops` times."""
    _folder(path)
    height, width = pictures[0].shape[:2]
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options={"crf": "18", "preset": "fast"})
        stream.width, stream.height, stream.pix_fmt = _even(width), _even(height), "yuv420p"
        for picture in [p for _ in range(loops) for p in pictures]:
            padded = np.pad(picture, ((0, _even(height) - height), (0, _even(width) - width), (0, 0)), mode="edge")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(padded, format="rgb24")))
        container.mux(stream.encode(None))


def _paper(height: int, width: int) -> Picture:
    return np.full((height, width, 3), PAPER, dtype=np.uint8)


def _even(pixels: int) -> int:
    return pixels + pixels % 2


def _folder(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
