"""Results as files: CSV and JSON, each written whole; and the list of videos that could not be read."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from tubelet.disk.write import sync_open, write_text
from tubelet.names import writable

SKIPPED: Final = "skipped.csv"
"""What the list of unreadable videos is called, with at least the columns `path` and `reason`."""

Cell = str | int | float | bool | None


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Names in it become `writable`."""
    write_text(path, json.dumps(_writable(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Write `csv_text`."""
    write_text(path, csv_text(header, rows))


def append_csv(path: Path, rows: Iterable[Sequence[Cell]]) -> None:
    """Add rows at the end of a file; they are on the disk when this returns, the last one perhaps not in a crash."""
    with path.open("a", encoding="utf-8", newline="") as file:
        file.write(writable(_lines(rows)))
        sync_open(file)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows by the names of their columns; none where there is no file. A cell that a row lacks is not in it."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return [
            {name: cell for name, cell in row.items() if name is not None and cell is not None}
            for row in csv.DictReader(file)
        ]


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """Comma-separated with a header; None is an empty cell, a float has six significant digits."""
    return _lines([header, *rows])


def _lines(rows: Iterable[Sequence[Cell]]) -> str:
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows([_plain(cell) for cell in row] for row in rows)
    return lines.getvalue()


def _writable(value: Any) -> Any:
    """A JSON value whose texts are all `writable`: a lone surrogate is no JSON for most readers."""
    if isinstance(value, dict):
        return {name: _writable(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_writable(one) for one in value]
    return writable(value) if isinstance(value, str) else value


def _plain(cell: Cell) -> str | int:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return f"{cell:.6g}" if isinstance(cell, float) else cell
