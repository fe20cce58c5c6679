"""What a search found, as one picture: frames of the query on top, below it a row of frames for each hit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from jaxtyping import UInt8

from tubelet.inference.embed.store import locate
from tubelet.inference.search.search import Hit, Hits, QueryWindow
from tubelet.names import one_line
from tubelet.pictures.strips import GAP_PIXELS, LINE_PIXELS, PAPER, Picture, lettered
from tubelet.video.augment.crops import as_tensor, resize
from tubelet.video.read.file import BadVideo, open_video

TILE_HEIGHT: Final = 96
TILE_WIDTH: Final = 144
FRAMES: Final = 5
MARGIN: Final = 8
GREY: Final = 225
LONGEST_NAME: Final = 56
"""Letters of a path; what is longer loses its middle."""


def sheet(found: Hits, root: Path) -> Picture:
    """The picture. `root` is the folder that the names of the store start from; a file that is gone gives grey."""
    strips = [_strip(_frames(found.query, _shown(found)), f"query   {_title(found.query.name, _shown(found))}")]
    for hit in found.hits:
        path = locate(root, hit.name)
        title = f"{hit.rank}.   {hit.score:.4f}   {_title(hit.name, hit)}"
        frames = None if path is None else _frames(path, hit)
        if frames is None:
            title += "   (the file is gone)" if path is None else "   (the file cannot be read)"
        strips.append(_strip(frames, title))
    line = np.full((2, strips[0].shape[1], 3), 120, dtype=np.uint8)
    return np.concatenate([strips[0], line, *strips[1:]])


def shortened(name: str, letters: int = LONGEST_NAME) -> str:
    """A long path without its middle."""
    if len(name) <= letters:
        return name
    head = (letters - 3) // 3
    return f"{name[:head]}...{name[head + 3 - letters :]}"


def span(start_seconds: float, end_seconds: float) -> str:
    """A time span for people: seconds below ten minutes, else minutes and hours."""
    return f"{_clock(start_seconds)} - {_clock(end_seconds)}"


def _clock(seconds: float) -> str:
    if seconds < 600:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes // 60)}:{int(minutes % 60):02d}:{rest:04.1f}"


def _shown(found: Hits) -> QueryWindow:
    """The window of the query that the best hit is most like."""
    best = found.hits[0].query_clip
    return next(window for window in found.windows if window.clip == best)


def _title(name: str, where: Hit | QueryWindow) -> str:
    return f"{shortened(one_line(name))}   {span(where.start_seconds, where.end_seconds)}"


def _frames(path: Path, where: Hit | QueryWindow) -> list[Picture] | None:
    """Frames spread evenly over a window; None where the file cannot be read."""
    middle = (np.arange(FRAMES) + 0.5) / FRAMES
    times = where.start_seconds + middle * (where.end_seconds - where.start_seconds)
    try:
        with open_video(path) as video:
            places = np.clip(np.searchsorted(video.seconds, times, side="right") - 1, 0, len(video) - 1)
            return list(video.frames(places, short_side=2 * TILE_HEIGHT))
    except BadVideo:
        return None


def _strip(frames: Sequence[Picture] | None, title: str) -> UInt8[np.ndarray, "_ _ 3"]:
    """A title and a row of tiles; grey ones where there are no frames."""
    width = 2 * MARGIN + FRAMES * (TILE_WIDTH + GAP_PIXELS) - GAP_PIXELS
    canvas = np.full((LINE_PIXELS + TILE_HEIGHT + MARGIN, width, 3), PAPER, dtype=np.uint8)
    for column in range(FRAMES):
        left = MARGIN + column * (TILE_WIDTH + GAP_PIXELS)
        tile = np.full((TILE_HEIGHT, TILE_WIDTH, 3), GREY, dtype=np.uint8) if frames is None else _tile(frames[column])
        canvas[LINE_PIXELS : LINE_PIXELS + TILE_HEIGHT, left : left + TILE_WIDTH] = tile
    return lettered(canvas, [(MARGIN, 3, title)])


def _tile(frame: Picture) -> UInt8[np.ndarray, "_ _ 3"]:
    """A frame fitted into a tile, paper around it."""
    height, width = frame.shape[:2]
    scale = min(TILE_HEIGHT / height, TILE_WIDTH / width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    small = resize(as_tensor(frame[None]), size, "bilinear")[0]
    tile = torch.full((3, TILE_HEIGHT, TILE_WIDTH), PAPER, dtype=torch.uint8)
    top, left = (TILE_HEIGHT - size[0]) // 2, (TILE_WIDTH - size[1]) // 2
    tile[:, top : top + size[0], left : left + size[1]] = small
    picture: Picture = tile.permute(1, 2, 0).numpy()
    return picture
