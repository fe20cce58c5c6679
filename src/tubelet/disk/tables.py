"""Results as files: CSV and JSON, each written whole (temporary name, then rename)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tubelet.disk.lock import write_text
from tubelet.names import writable

Cell = str | int | float | bool | None


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Names in it become `writable`."""
    write_text(path, json.dumps(_writable(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Write `csv_text`."""
    write_text(path, csv_text(header, rows))


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """Comma-separated with a header; None is an empty cell, a float has six significant digits."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_plain(cell) for cell in row] for row in rows)
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
