"""The list of videos that could not be read, beside the file that lacks them: `OUT.skipped.csv` (path, reason)."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tubelet.disk.write import write_text

Bad = tuple[str, str]
"""Name of a video that could not be read, and why."""

_COLUMNS: Final = ("path", "reason")


def skipped_file(out: Path) -> Path:
    """Where the unreadable videos of `out` are listed."""
    return out.with_suffix(".skipped.csv")


def write_skipped(out: Path, skipped: Sequence[Bad]) -> None:
    """Write the list, with nothing but its head where every video could be read."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_COLUMNS, *skipped])
    write_text(skipped_file(out), text.getvalue())


def read_skipped(out: Path) -> tuple[Bad, ...]:
    """The list; empty where there is no file."""
    if not skipped_file(out).is_file():
        return ()
    with skipped_file(out).open(encoding="utf-8", newline="") as file:
        return tuple((row["path"], row["reason"]) for row in csv.DictReader(file))


def check_skipped(out: Path, skipped: Sequence[Bad], *, videos: int, max_skipped: float) -> None:
    """ValueError where more than the share `max_skipped` of all `videos`, or all of them, could not be read.

    The list is written before that.
    """
    write_skipped(out, skipped)
    count = len(skipped)
    if count > max_skipped * videos:
        raise ValueError(
            f"{count} of {videos} videos cannot be read, more than --max-skipped {max_skipped:g} allows; "
            f"{skipped_file(out)} says why; finished work is kept"
        )
    if count == videos:
        raise ValueError(f"none of the {videos} videos can be read; {skipped_file(out)} says why")
