"""Rows of frames with labels: as a still strip (PNG) and moving (GIF, MP4)."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from tubelet.pictures.reconstruct import Reconstruction

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
    """Labelled rows of frames spread over those that were predicted, the note on colours below."""
    total = len(found.predicted_frames)
    places = np.unique(np.linspace(0, total - 1, min(frames, total)).round().astype(int))
    picked = [found.predicted_frames[place] for place in places]
    tiles = [(label, [enlarged(clip[i]) for i in picked]) for label, clip in rows_of(found)]
    height, width = tiles[0][1][0].shape[:2]
    across = LABEL_PIXELS + len(picked) * (width + GAP_PIXELS)
    bottom = LINE_PIXELS + len(tiles) * (height + GAP_PIXELS)
    caption = wrapped(f"{found.note}; loss {found.loss:.3f}", across - 2 * GAP_PIXELS)
    canvas = _paper(bottom + len(caption) * LINE_PIXELS, across)
    words = [(LABEL_PIXELS + k * (width + GAP_PIXELS), 2, f"frame {i}") for k, i in enumerate(picked)]
    for row, (label, pictures) in enumerate(tiles):
        top = LINE_PIXELS + row * (height + GAP_PIXELS)
        words.append((4, top + height // 2 - LETTERS_PIXELS // 2, label))
        for column, picture in enumerate(pictures):
            left = LABEL_PIXELS + column * (width + GAP_PIXELS)
            canvas[top : top + height, left : left + width] = picture
    words += [(GAP_PIXELS, bottom + i * LINE_PIXELS, line) for i, line in enumerate(caption)]
    return lettered(canvas, words)


def side_by_side(found: Reconstruction) -> list[Picture]:
    """One picture per frame of the clip: the clips beside each other, labels above, the note below.

    Where not all frames were predicted, those that were are held, so that nothing is beside another frame.
    """
    rows = rows_of(found)
    height, width = enlarged(found.original[0]).shape[:2]
    across, bottom = _even(len(rows) * (width + GAP_PIXELS)), LINE_PIXELS + height
    caption = wrapped(found.note, across - 2 * GAP_PIXELS)
    words = [(column * (width + GAP_PIXELS) + 2, 2, label) for column, (label, _) in enumerate(rows)]
    words += [(2, bottom + i * LINE_PIXELS, line) for i, line in enumerate(caption)]
    shown = []
    for number in found.predicted_frames:
        canvas = _paper(_even(bottom + len(caption) * LINE_PIXELS), across)
        for column, (_, clip) in enumerate(rows):
            left = column * (width + GAP_PIXELS)
            canvas[LINE_PIXELS:bottom, left : left + width] = enlarged(clip[number])
        shown += [lettered(canvas, words)] * (len(found.original) // len(found.predicted_frames))
    return shown


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` pixels that hold the whole text; a word that is wider than that is cut in two."""
    lines, words = [""], text.split()
    while words:
        word = words.pop(0)
        longer = f"{lines[-1]} {word}".lstrip()
        if _width(longer) <= width:
            lines[-1] = longer
        elif lines[-1]:
            lines.append("")
            words.insert(0, word)
        else:
            kept = max([1, *(n for n in range(1, len(word)) if _width(word[:n]) <= width)])
            lines[-1] = word[:kept]
            words[:0] = [word[kept:]] if word[kept:] else []
    return lines


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


def refuse_unwritable(path: Path, option: str) -> None:
    """ValueError where a picture cannot be written there, before anything is computed; makes nothing."""
    folder = path.absolute().parent
    try:
        while not folder.exists():
            folder = folder.parent
        if path.is_dir():
            reason = "a folder has this name"
        elif not folder.is_dir():
            reason = f"{folder.name} is a file"
        else:
            with path.open("ab") if path.exists() else tempfile.TemporaryFile(dir=folder):
                return
    except OSError as error:
        reason = error.strerror or str(error)
    raise ValueError(f"{path}: cannot be written ({reason}); choose another with {option}")


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


def _width(text: str) -> float:
    return ImageFont.load_default(LETTERS_PIXELS).getlength(text)


def _even(pixels: int) -> int:
    return pixels + pixels % 2


def _folder(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
