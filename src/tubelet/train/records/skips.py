"""skipped.csv: the videos a run could not read, each once, with the reason; and the cap on how many."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from tubelet.data.dataset import Skipped
from tubelet.data.streams import StreamSet
from tubelet.disk.lock import write_text
from tubelet.names import writable
from tubelet.types import VIDEO

SKIPPED: Final = "skipped.csv"
_COLUMNS: Final = ("path", "reason", "first_step")
_SOURCE: Final = "source"
_STREAM: Final = "stream"


class Skips:
    """Notes videos of the `streams` that were skipped. Those after `step`, from which the run goes on, are forgotten.

    Where a stream is a mixture of several sources, or there are several streams, videos are told apart by these, too,
    and the file names them. More than the share `max_skipped` of the videos of a stream is a ValueError.
    """

    def __init__(self, out: Path, streams: Sequence[StreamSet], *, step: int) -> None:
        self.path = out / SKIPPED
        self._streams = {one.name: one for one in streams}
        told = {_SOURCE: any(one.mixture is not None for one in streams), _STREAM: len(streams) > 1}
        self._columns = (*_COLUMNS, *(name for name, is_told in told.items() if is_told))
        kept = [row for row in read_skipped(self.path) if int(row["first_step"]) <= step]
        self._known = {_identity(row) for row in kept}
        rows = [[row.get(name) or "" for name in self._columns] for row in kept]
        write_text(self.path, _rows([self._columns, *rows]))

    def __len__(self) -> int:
        return len(self._known)

    def origin_of(self, one: Skipped) -> str:
        """In brackets: its stream and its source, and how many of them were skipped so far. Nothing without either."""
        row = self._row(one, 0)
        named = [f"{name} {row[name]}" for name in (_STREAM, _SOURCE) if row[name] and name in self._columns]
        count = sum(known[1:] == _identity(row)[1:] for known in self._known)
        return f" ({', '.join(named)}, {count} skipped so far)" if named else ""

    def note(self, skipped: Iterable[Skipped], step: int) -> tuple[Skipped, ...]:
        """Write down the new ones among these, and return them; ValueError where they are too many now."""
        rows = [(self._row(one, step), one) for one in skipped]
        new = {_identity(row): (row, one) for row, one in rows if _identity(row) not in self._known}
        if not new:
            return ()
        self._known |= new.keys()
        with self.path.open("a", encoding="utf-8", newline="") as file:
            file.write(_rows([row[name] for name in self._columns] for row, _ in new.values()))
            file.flush()
            os.fsync(file.fileno())
        for stream in self._streams.values():
            self._check(stream)
        return tuple(one for _, one in new.values())

    def _check(self, stream: StreamSet) -> None:
        count = sum(known[2] == stream.name for known in self._known)
        if count > stream.max_skipped * stream.video_count:
            raise ValueError(
                f"{count} of {stream.video_count} videos cannot be read, more than "
                f"{stream.fields[1]}={stream.max_skipped:g} allows; {self.path} names them and says why"
            )

    def _row(self, one: Skipped, step: int) -> dict[str, str]:
        mixture = self._streams[one.stream].mixture
        source = "" if mixture is None else mixture.source_of(one.index)
        values = (writable(str(one.path)), " ".join(one.reason.split()), str(step), source, one.stream)
        return dict(zip((*_COLUMNS, _SOURCE, _STREAM), values, strict=True))


def _identity(row: Mapping[str, str]) -> tuple[str, str, str]:
    """Path, source and stream: a file may be in several."""
    return row["path"], row.get(_SOURCE) or "", row.get(_STREAM) or VIDEO


def read_skipped(path: Path) -> list[dict[str, str]]:
    """Rows of a skipped.csv (path, reason, first_step, and source and stream where there are several).

    None where there is no file; a line cut short is left out.
    """
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if (row.get("first_step") or "").isdigit()]


def _rows(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return writable(text.getvalue())
