"""Where the lines of a list lead: to a file, whose ending may be missing, or to a folder of images."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tubelet.video.lists.list_file import Entry
from tubelet.video.read.errors import BadVideo
from tubelet.video.read.frame_range import FrameRange

_FOLDERS_LOOKED_AT: Final = 10
"""How many folders of a list are listed to see what the numbers beside them mean."""


@dataclass(frozen=True)
class ListedVideo:
    """The path of a video, and its name: as listed, with the range of a folder's images that it is."""

    path: Path
    name: str


def places_of(
    source: Path, entries: Sequence[Entry], *, root: Path, labelled: bool, extensions: Collection[str]
) -> list[ListedVideo]:
    """The place of each entry of the list `source`; paths start from `root`.

    A line that ends in numbers, `folder start total` without labels or `folder total label` with them (VideoMAE V2),
    means images where the path without these numbers is a folder, and with them it is nothing. V2's lists with labels
    are read without them as well: they are known by the first numbers, which are how many images the folders have.
    ValueError for numbers that mean no images.
    """
    looks = [_look(entry, root, extensions) for entry in entries]
    listed = [entry for entry, is_folder in zip(entries, looks, strict=True) if is_folder]
    has_totals = labelled or _are_totals([entry for entry in listed if entry.numbers[0] > 1], root)
    if labelled:
        _check_totals(source, listed, root)
    places = []
    for entry, is_folder in zip(entries, looks, strict=True):
        if is_folder or (is_folder is None and listed):  # no such folder; but others in this list are
            places.append(_images(source, entry, root, has_totals=has_totals))
        else:
            places.append(ListedVideo(_path(root, entry.path, extensions), entry.path))
    return places


def _look(entry: Entry, root: Path, extensions: Collection[str]) -> bool | None:
    """Whether a line names a folder and numbers of images; None where nothing of what it may name is there."""
    if entry.folder is None:
        return False
    whole = _path(root, entry.path, extensions)
    if whole.is_file() or whole.is_dir():
        return False
    return True if (root / entry.folder).is_dir() else None


def _path(root: Path, listed: str, extensions: Collection[str]) -> Path:
    """With an ending, where it has none: `.mp4` as the authors do, or `.webm`; else it may be a folder."""
    path = root / listed
    if path.suffix.lower() in extensions or path.is_file():
        return path
    mp4, webm = (path.with_name(f"{path.name}{ending}") for ending in (".mp4", ".webm"))
    if mp4.is_file():
        return mp4
    if webm.is_file():
        return webm
    return path if path.is_dir() else mp4


def _images(source: Path, entry: Entry, root: Path, *, has_totals: bool) -> ListedVideo:
    first, total = (None, entry.numbers[0]) if has_totals else entry.numbers
    folder = entry.folder or ""
    if total == -1 and not has_totals:  # V2's way to say all
        return ListedVideo(root / folder, folder)
    if total < 1 or (first or 0) < 0:
        start = "" if first is None else f", from number {first} on"
        raise ValueError(f"{source}, line {entry.line}: {total} images of {folder}{start}; expected 1 or more")
    name = FrameRange(Path(folder), first, total).shown.as_posix()
    return ListedVideo(FrameRange(root / folder, first, total).path(), name)


def _are_totals(listed: Sequence[Entry], root: Path) -> bool:
    """Whether the first numbers of these lines are how many images the folders have."""
    some = listed[:_FOLDERS_LOOKED_AT]
    return bool(some) and all(_count(entry, root) == entry.numbers[0] for entry in some)


def _check_totals(source: Path, listed: Sequence[Entry], root: Path) -> None:
    some = listed[:_FOLDERS_LOOKED_AT]
    if some and all(entry.numbers[0] in (0, 1) for entry in listed) and any(_count(entry, root) > 1 for entry in some):
        raise ValueError(
            f"{source}, line {some[0].line}: {some[0].numbers[0]} images of {some[0].folder}; with labels, lines are "
            "`folder total label`; is this a list without them, `folder start total`?"
        )


def _count(entry: Entry, root: Path) -> int:
    try:
        return len(FrameRange(root / (entry.folder or "")).names())
    except BadVideo:
        return 0
