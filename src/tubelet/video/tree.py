"""What lies in a folder and below it: videos, images, and what is neither."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from tubelet.video.numbered import is_frame_folder
from tubelet.video.still import STILL_EXTENSIONS


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
    videos: list[str] = []
    images: list[str] = []
    others: list[str] = []
    for here, names in _walk(folder):
        if is_frame_folder(folder / here, names, video_extensions=video_extensions):
            videos.append(here or ".")
            continue
        for name in names:
            extension = _extension(name)
            to = videos if extension in video_extensions else images if extension in STILL_EXTENSIONS else others
            _add(to, here, name)
    if videos != ["."]:  # pictures above videos are no video
        videos = [name for name in videos if name != "."]
    return Tree(tuple(sorted(videos)), tuple(sorted(images)), tuple(sorted(others)))


def tree_of_images(folder: Path, *, video_extensions: Collection[str]) -> Tree:
    """Every image counts by itself, however it is numbered."""
    videos: list[str] = []
    images: list[str] = []
    others: list[str] = []
    for here, names in _walk(folder):
        for name in names:
            extension = _extension(name)
            to = images if extension in STILL_EXTENSIONS else videos if extension in video_extensions else others
            _add(to, here, name)
    return Tree(tuple(sorted(videos)), tuple(sorted(images)), tuple(sorted(others)))


def _walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Each folder by its relative name (empty for `folder`), and the files in it.

    Through links to folders as well (sets are often linked), but no folder twice.
    """
    been: set[str] = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in been:
            folders.clear()
            continue
        been.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        relative = os.path.relpath(here, folder).replace(os.sep, "/")
        yield "" if relative == "." else relative, files


def _add(to: list[str], here: str, name: str) -> None:
    if not name.startswith("."):
        to.append(f"{here}/{name}" if here else name)


def _extension(name: str) -> str:
    return os.path.splitext(name)[1].lower()
