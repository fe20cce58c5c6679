"""Classes of several sets in one space of labels, matched by name (as K710 is, VideoMAE V2, arXiv:2303.16727, 3.3).

Names are compared without regard to case, spaces, underscores and quotes around them: `Golf_Driving` is `golf driving`.
"""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int64


def normalised(name: str) -> str:
    """What two names of one class have in common."""
    text = unicodedata.normalize("NFKC", name).strip()
    quoted = len(text) > 1 and text[0] == text[-1] == '"'
    return " ".join((text[1:-1] if quoted else text).casefold().replace("_", " ").split())


@dataclass(frozen=True)
class LabelSpace:
    """Names of classes in the order of their labels, label 0 first.

    ValueError where there is none, or where two names are one class.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError("a space of labels needs at least one class")
        first: dict[str, str] = {}
        for name in self.names:
            before = first.setdefault(normalised(name), name)
            if not normalised(name) or before is not name:
                raise ValueError(f"class {name!r} has no name or is the same as {before!r}")

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def labels(self) -> dict[str, int]:
        """Labels by normalised name."""
        return {normalised(name): label for label, name in enumerate(self.names)}


def read_label_space(path: Path) -> LabelSpace:
    """One class name a line, in the order of the labels (0 first), as in a list of the 710 classes of K710.

    ValueError with file and line for an empty line between others, or a class that is there twice.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as a list of class names: {error}") from error
    first: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        key = normalised(line)
        if not key:
            raise ValueError(f"{path}, line {number}: no class name on this line")
        if key in first:
            raise ValueError(f"{path}, line {number}: class {line.strip()!r} is already on line {first[key]}")
        first[key] = number
    if not first:
        raise ValueError(f"{path}: no class names in it")
    return LabelSpace(tuple(_unquoted(line) for line in lines))


def merged(spaces: Iterable[LabelSpace]) -> LabelSpace:
    """All classes of the spaces, each once, in the order in which they first appear."""
    names: dict[str, str] = {}
    for space in spaces:
        for name in space.names:
            names.setdefault(normalised(name), name)
    return LabelSpace(tuple(names.values()))


def renamed(space: LabelSpace, renames: Mapping[str, str]) -> LabelSpace:
    """The classes under their new names; those that get one name become one. ValueError as in `rows`."""
    new = _by_old_name(space, renames)
    names: dict[str, str] = {}
    for name in space.names:
        name = new.get(normalised(name), name)
        names.setdefault(normalised(name), name)
    return LabelSpace(tuple(names.values()))


def rows(source: LabelSpace, target: LabelSpace, renames: Mapping[str, str]) -> Int64[np.ndarray, " n"]:
    """For each class of `source` its label in `target`, -1 where it has none.

    `renames` maps names of the source to names of the target. ValueError where it renames what the source has not got.
    """
    new = _by_old_name(source, renames)
    names = [normalised(new.get(normalised(name), name)) for name in source.names]
    return np.array([target.labels.get(name, -1) for name in names], dtype=np.int64)


def read_renames(path: Path) -> dict[str, str]:
    """A csv file of `name in this source,name in the merged space` lines, quoted where a name holds a comma."""
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.reader(file, skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: cannot be read as a list of new names: {error}") from error
    renames: dict[str, str] = {}
    for number, fields in enumerate(lines, start=1):
        if not fields:
            continue
        if len(fields) != 2 or not all(normalised(field) for field in fields):
            raise ValueError(f"{path}, line {number}: expected `name in this source,name in the merged space`")
        if fields[0] in renames:
            raise ValueError(f"{path}, line {number}: {fields[0]!r} is renamed on an earlier line already")
        renames[fields[0].strip()] = fields[1].strip()
    return renames


def _by_old_name(space: LabelSpace, renames: Mapping[str, str]) -> dict[str, str]:
    for name in renames:
        if normalised(name) not in space.labels:
            raise ValueError(f"{name!r} is to be renamed, but no class has this name")
    return {normalised(old): new for old, new in renames.items()}


def _unquoted(line: str) -> str:
    text = line.strip()
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] == '"' else text
