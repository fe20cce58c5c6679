"""Names of classes, one a line in the order of the labels."""

from __future__ import annotations

from pathlib import Path

Names = tuple[str, ...]


def read_names(path: Path) -> Names:
    """One name a line, in the order of the labels (0 first); empty lines at the end do not count."""
    try:
        lines = path.read_text(encoding="utf-8").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as a list of class names: {error}") from error
    first_seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        name = line.strip()
        if not name:
            raise ValueError(f"{path}, line {number}: no class name on this line")
        if name in first_seen:
            raise ValueError(f"{path}, line {number}: class {name!r} is already on line {first_seen[name]}")
        first_seen[name] = number
    if not first_seen:
        raise ValueError(f"{path}: no class names in it")
    return tuple(first_seen)


def names_text(names: Names) -> str:
    """The text that `read_names` reads back."""
    return "".join(f"{name}\n" for name in names)
