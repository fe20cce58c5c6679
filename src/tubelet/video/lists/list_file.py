"""Reading lists of videos: text with a label as the last field, JSON Lines, and the lists of UCF101 and HMDB51."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

UCF_LIST: Final = re.compile(r"(train|test)list0\d\.txt")
HMDB_LIST: Final = re.compile(r"(?P<name>.+)_test_split(?P<split>\d)\.txt")
ONE_NUMBER: Final = re.compile(r"(.*?\S)[\s,]+(-?[0-9]+)")
TWO_NUMBERS: Final = re.compile(r"(.*?\S)[\s,]+(-?[0-9]+)[\s,]+(-?[0-9]+)")
HEADERS: Final = frozenset({"path", "file", "filename", "video", "video_path", "videos"})


@dataclass(frozen=True)
class Entry:
    """A line of a list: its number from 1, the path as listed, its label (number, class name or none)."""

    line: int
    path: str
    label: int | str | None
    classes: tuple[str, ...] | None = None
    """Names of all classes, where the list's own class file tells them."""
    folder: str | None = None
    """The path without the numbers that stand between it and the label or the end of the line, where there are any."""
    numbers: tuple[int, ...] = ()
    """These numbers: one before a label, two at the end of a line of a list without labels."""


def read_list(source: Path, *, labelled: bool, extensions: Collection[str]) -> list[Entry]:
    """Entries of a list file; ValueError with file and line for what cannot be understood."""
    try:
        text = source.read_text(encoding="utf-8-sig", errors="surrogateescape")  # file names need not be UTF-8
    except OSError as error:
        raise ValueError(f"{source}: cannot be read as a list of videos (text, one path a line): {error}") from error
    if "\0" in text:
        raise ValueError(f"{source}: cannot be read as a list of videos (text, one path a line): it holds zero bytes")
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if source.suffix.lower() in {".jsonl", ".ndjson"}:
        return [_json_entry(source, number, line, labelled=labelled) for number, line in lines]
    class_file = source.parent / "classInd.txt"
    if UCF_LIST.fullmatch(source.name) and class_file.is_file():
        return ucf101_entries(source, lines, class_file)
    if HMDB_LIST.fullmatch(source.name):
        raise ValueError(
            f"{source}: an HMDB51 split is a folder of 51 such files whose numbers mean unused, train, test; "
            "write a `path label` list with tubelet.video.lists.list_file.hmdb51_list"
        )
    rows = _without_header(lines, extensions)
    return _labelled_entries(source, rows, extensions) if labelled else _unlabelled_entries(rows, extensions)


def ucf101_entries(source: Path, lines: list[tuple[int, str]], class_file: Path) -> list[Entry]:
    """`Class/v_x.avi 1` (train) or `Class/v_x.avi` (test); the class is the folder, numbered by classInd.txt less 1."""
    names = read_class_index(class_file)
    entries = []
    for number, line in lines:
        path, _, label = line.partition(" ")
        name = path.split("/")[0]
        if name not in names:
            raise ValueError(f"{source}, line {number}: class {name!r} is not in {class_file}")
        if label.strip() and label.strip() != str(names.index(name) + 1):
            raise ValueError(f"{source}, line {number}: label {label} but {class_file} says {names.index(name) + 1}")
        entries.append(Entry(number, path, names.index(name), names))
    return entries


def read_class_index(path: Path) -> tuple[str, ...]:
    """Names from UCF101's `classInd.txt`: lines `1 ApplyEyeMakeup`, counted from 1 without gaps."""
    names: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        place, _, name = line.strip().partition(" ")
        if place != str(len(names) + 1) or not name.strip():
            raise ValueError(f"{path}, line {number}: expected `{len(names) + 1} ClassName`, found {line.strip()!r}")
        names.append(name.strip())
    return tuple(names)


def hmdb51_list(folder: Path, *, split: int, part: str) -> str:
    """`class/name.avi label` lines from HMDB51's files `<class>_test_split<split>.txt`.

    `part` is "train" (marked 1 there) or "test" (2); 0 means unused. Classes are numbered in sorted order. Write the
    text to a file and give that to `read_manifest`.
    """
    wanted = {"train": "1", "test": "2"}
    if part not in wanted:
        raise ValueError(f"part {part!r}: choose from train, test")
    files = [(match["name"], path) for path in folder.iterdir() if (match := HMDB_LIST.fullmatch(path.name))
             and match["split"] == str(split)]  # fmt: skip
    if not files:
        raise ValueError(f"{folder}: no files <class>_test_split{split}.txt in it")
    out = []
    for label, (name, path) in enumerate(sorted(files)):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            fields = line.rsplit(None, 1)
            if fields and (len(fields) != 2 or fields[1] not in {"0", "1", "2"}):
                raise ValueError(f"{path}, line {number}: expected `name.avi 0|1|2`, found {line!r}")
            if fields and fields[1] == wanted[part]:
                out.append(f"{name}/{fields[0]} {label}\n")
    return "".join(out)


def _without_header(lines: list[tuple[int, str]], extensions: Collection[str]) -> list[tuple[int, str]]:
    """Without a first line such as `path,label`; `video 1.mp4` is a video."""
    words = re.split(r"[\s,]+", lines[0][1].lower()) if lines else []
    is_header = bool(words) and words[0].strip('"') in HEADERS and len(words) <= 3
    return lines[1:] if is_header and not any(_is_path(word.strip('"'), extensions) for word in words) else lines


Split = Callable[[str], tuple[str, str] | None]


def _at_last(separator: str | None) -> Split:
    def split(line: str) -> tuple[str, str] | None:
        fields = line.rsplit(separator, 1)
        if len(fields) < 2 or not fields[0].strip() or not fields[1].strip():
            return None
        return _unquoted(fields[0]), _unquoted(fields[1])

    return split


SPLITS: Final = (_at_last(","), _at_last("\t"), _at_last(None))


def _labelled_entries(source: Path, lines: list[tuple[int, str]], extensions: Collection[str]) -> list[Entry]:
    split = _split_of(lines, extensions)
    rows = [(number, line, split(line)) for number, line in lines]
    numbers = sum(fields is not None and _is_number(fields[1]) for _, _, fields in rows)
    entries = []
    for number, line, fields in rows:
        if fields is None or _is_path(line, extensions):
            raise ValueError(f"{source}, line {number}: no label in {line!r}; expected `path label`")
        path, label = fields
        if 2 * numbers >= len(rows):  # a list of numbers: anything else is a slip, not a class name
            if not _is_number(label):
                raise ValueError(f"{source}, line {number}: label {label!r} is not a number like those of other lines")
            if int(label) < 0:
                raise ValueError(f"{source}, line {number}: label {label} is negative; labels count from 0")
            entries.append(_with_numbers(Entry(number, path, int(label)), path, ONE_NUMBER))
        else:
            if _is_number(label):
                raise ValueError(f"{source}, line {number}: label {label!r} is a number, but other lines name classes")
            entries.append(_with_numbers(Entry(number, path, label), path, ONE_NUMBER))
    return entries


def _split_of(lines: list[tuple[int, str]], extensions: Collection[str]) -> Split:
    """The separator under which most lines end in a number; else, for class names, the one right after the paths.

    Paths of folders have no ending to know them by: the separator is then one that every line has.
    """
    by_numbers = [sum((f := split(line)) is not None and _is_number(f[1]) for _, line in lines) for split in SPLITS]
    if lines and 2 * max(by_numbers) >= len(lines):
        return SPLITS[by_numbers.index(max(by_numbers))]
    by_paths = [sum((f := split(line)) is not None and _is_path(f[0], extensions) for _, line in lines)
                for split in SPLITS]  # fmt: skip
    if max(by_paths, default=0):
        return SPLITS[by_paths.index(max(by_paths))]
    return next((split for split in SPLITS if all(split(line) for _, line in lines)), SPLITS[-1])


def _unlabelled_entries(lines: list[tuple[int, str]], extensions: Collection[str]) -> list[Entry]:
    """Paths. A label after a path is ignored, and so is V2's `path 0 -1` (start and length: the whole video).

    Two numbers are kept with the path before them: what they mean, only the files tell.
    """
    split = _split_of(lines, extensions)
    entries = []
    for number, line in lines:
        path = _unquoted(line)
        fields = None if _is_path(path, extensions) else split(line)
        if fields is not None and _is_number(fields[1]):
            path = fields[0]
            if fields[1] == "-1" and re.search(r"[\s,]0$", path):
                path = _unquoted(path[:-2])
        elif fields is not None and _is_path(fields[0], extensions):
            path = fields[0]
        entries.append(_with_numbers(Entry(number, path, None), "" if path == _unquoted(line) else line, TWO_NUMBERS))
    return entries


def _with_numbers(entry: Entry, text: str, ending: re.Pattern[str]) -> Entry:
    """The entry with the numbers that `text` ends in, and what stands before them, if it is so."""
    found = ending.fullmatch(text)
    if found is None:
        return entry
    folder, *numbers = found.groups()
    return replace(entry, folder=_unquoted(folder), numbers=tuple(map(int, numbers)))


def _json_entry(source: Path, number: int, line: str, *, labelled: bool) -> Entry:
    try:
        item = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{source}, line {number}: not JSON ({error})") from error
    if not isinstance(item, dict) or not isinstance(item.get("path"), str):
        raise ValueError(f'{source}, line {number}: expected {{"path": "...", "label": ...}}')
    label = item["label"] if labelled and "label" in item else None
    if labelled and (isinstance(label, bool) or not isinstance(label, (int, str))):
        raise ValueError(f"{source}, line {number}: no label (a number or a class name) for {item['path']}")
    if isinstance(label, int) and label < 0:
        raise ValueError(f"{source}, line {number}: label {label} is negative; labels count from 0")
    return Entry(number, item["path"], label)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+", text) is not None


def _is_path(text: str, extensions: Collection[str]) -> bool:
    return any(text.lower().endswith(extension) for extension in extensions)


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1].replace('""', '"') if len(text) > 1 and text[0] == text[-1] == '"' else text
