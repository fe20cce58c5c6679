"""What lies in a folder and below it: videos, images, and what is neither."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tubelet.video.read.numbered import is_frame_folder, is_still


@dataclass(frozen=True)
class Tree:
    """Names relative to the folder, sorted; `videos` has folders of numbered images, too.

    Names that start with a dot are in none of them, nor are the files of a folder that is a video.
    """

    videos: tuple[str, ...]
    images: tuple[str, ...]
    others: tuple[str, ...]


def tree_of_videos(folder: Path, *, video_extensions: Collection[str]) -> Tree:
    """Folders of numbered images are a video each (`is_frame_folder`); `images` are those in no such folder.

    The folder itself is such a video (`.`) where nothing below it is a video.
    """
    found = _Listing(folder, video_extensions)
    for here, names in _walk(folder):
        if is_frame_folder(folder / here, names, video_extensions=video_extensions):
            found.videos.append(here or ".")
        else:
            found.sort_in(here, names)
    if found.videos != ["."]:  # pictures above videos are no video
        found.videos = [name for name in found.videos if name != "."]
    return found.tree()


def tree_of_images(folder: Path, *, video_extensions: Collection[str]) -> Tree:
    """Every image counts by itself, however it is numbered."""
    found = _Listing(folder, video_extensions)
    for here, names in _walk(folder):
        found.sort_in(here, names)
    return found.tree()


@dataclass
class _Listing:
    """Names as they are found. WebP files are images, or videos where they move."""

    folder: Path
    video_extensions: Collection[str]
    videos: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    def sort_in(self, here: str, names: Collection[str]) -> None:
        for name in names:
            if name.startswith("."):
                continue
            path = self.folder / here / name
            is_video = path.suffix.lower() in self.video_extensions
            to = self.images if is_still(path) else self.videos if is_video else self.others
            to.append(f"{here}/{name}" if here else name)

    def tree(self) -> Tree:
        return Tree(*(tuple(sorted(names)) for names in (self.videos, self.images, self.others)))


def _walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Each folder by its relative name (empty for `folder`), and the files in it.

    Through links to folders as well (sets are often linked), but no folder twice. ValueError for one that cannot be
    opened: videos would be missing, and nobody know of them.
    """
    been: set[str] = set()
    for here, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
        real = os.path.realpath(here)
        if real in been:
            folders.clear()
            continue
        been.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        relative = os.path.relpath(here, folder).replace(os.sep, "/")
        yield "" if relative == "." else relative, files


def _refuse(error: OSError) -> None:
    why = (error.strerror or str(error)).lower()
    raise ValueError(f"{error.filename}: cannot be opened ({why}); make it readable, or move it away") from error
