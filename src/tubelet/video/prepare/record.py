"""What a folder of prepared videos knows about itself: which source became which files, and how."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, TextIO

from tubelet.disk.write import sync_open, write_text
from tubelet.video.prepare.transcode import Preparation, PreparedFile

JOURNAL: Final = ".prepared.jsonl"
FORMAT: Final = 1
"""Part of every record: raise it when prepared files change, and all are made anew."""


@dataclass(frozen=True)
class SourceState:
    """A source as it was when it was read: `bytes` and `changed_ns` tell whether it still is the same."""

    path: Path
    bytes: int
    changed_ns: int


@dataclass(frozen=True)
class Record:
    """A source that is done. Paths of `parts` are relative to the folder. `name` is what its files are called after."""

    name: str
    source: SourceState
    how: Preparation
    parts: tuple[PreparedFile, ...]

    @property
    def seconds(self) -> float:
        """How much video there is."""
        return sum(part.end_seconds - part.start_seconds for part in self.parts)

    def holds(self, folder: Path, source: SourceState, how: Preparation) -> bool:
        """Whether the files are there, made from the same source in the same way."""
        same = (self.source.bytes, self.source.changed_ns, self.how) == (source.bytes, source.changed_ns, how)
        return same and bool(self.parts) and all(_size(folder / part.path) == part.bytes for part in self.parts)


class PreparationLog:
    """The records of a folder by name. Each is on the disk before the next: a crash loses only what was in work."""

    def __init__(self, folder: Path, records: Mapping[str, Record], file: TextIO) -> None:
        self._folder, self._records, self._file = folder, dict(records), file

    def get(self, name: str) -> Record | None:
        """The record of a source that is done, or was before it was begun anew."""
        return self._records.get(name)

    def records(self) -> list[Record]:
        """All of them, by name."""
        return [self._records[name] for name in sorted(self._records)]

    def begin(self, record: Record) -> None:
        """A source is about to be done anew: what there is of it does not count from now on."""
        self._write(replace(record, source=replace(record.source, bytes=-1)))

    def add(self, record: Record) -> None:
        """Note that a source is done; files that it had before and has no more are removed."""
        before = self._records.get(record.name)
        self._records[record.name] = record
        self._write(record)
        for part in before.parts if before else ():
            if part.path not in {new.path for new in record.parts}:
                (self._folder / part.path).unlink(missing_ok=True)

    def _write(self, record: Record) -> None:
        self._file.write(_line(record))
        sync_open(self._file)


@contextmanager
def open_log(folder: Path) -> Iterator[PreparationLog]:
    """The log of a folder, made with it. ValueError where the folder holds what `prepare` has not made."""
    path = folder / JOURNAL
    if not path.is_file():
        strange = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
        if strange:
            raise ValueError(f"{folder}: holds {strange[0]!r}, which `prepare` has not made; choose an empty folder")
    records = _read(path) if path.is_file() else {}
    write_text(path, "".join(_line(record) for record in records.values()))  # a line cut short by a crash goes
    with path.open("a", encoding="utf-8") as file:
        yield PreparationLog(folder, records, file)


def _read(path: Path) -> dict[str, Record]:
    records: dict[str, Record] = {}
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines, start=1):
        try:
            fields = json.loads(line) if line else {"format": None}
            if fields["format"] == FORMAT:
                record = _record(fields)
                records[record.name] = record
        except (ValueError, KeyError, TypeError) as error:
            if number < len(lines):
                raise ValueError(f"{path}, line {number}: damaged; remove the folder and prepare it anew") from error
    return records


def _line(record: Record) -> str:
    parts = [{**asdict(part), "path": part.path.as_posix()} for part in record.parts]
    source = {**asdict(record.source), "path": str(record.source.path)}
    fields = {"format": FORMAT, "name": record.name, "source": source, "how": record.how.model_dump(), "parts": parts}
    return json.dumps(fields) + "\n"


def _record(fields: Mapping[str, Any]) -> Record:
    source = fields["source"]
    return Record(
        name=fields["name"],
        source=SourceState(Path(source["path"]), source["bytes"], source["changed_ns"]),
        how=Preparation.model_validate(fields["how"]),
        parts=tuple(PreparedFile(**{**part, "path": Path(part["path"])}) for part in fields["parts"]),
    )


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
