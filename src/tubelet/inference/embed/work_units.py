"""Work in pieces that may be done by many processes and killed at any time: `OUT.parts/` beside the file it becomes.

    OUT.parts/plan.json  unit-000000.parquet  unit-000001.parquet  ...

A unit is there whole or not at all. When all are there they are put together in order, and the folder goes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from pydantic import ValidationError

from tubelet.disk.write import write_text
from tubelet.inference.embed.skipped import Bad
from tubelet.inference.embed.store import Facts, Rows, part_metadata, read_facts, read_part, row_count, write_rows
from tubelet.names import writable

PLAN: Final = "plan.json"
LOCK: Final = ".lock"
_NO_LOCKS: Final = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # some network file systems


class Parts:
    """The units of `out`."""

    def __init__(self, out: Path) -> None:
        self.out, self.folder = out, out.with_name(f"{out.name}.parts")

    def path(self, unit: int) -> Path:
        return self.folder / f"unit-{unit:06d}.parquet"

    def finished(self) -> set[int]:
        """Numbers of the units that are there."""
        return {int(path.stem.removeprefix("unit-")) for path in self.folder.glob("unit-*.parquet")}

    def write(self, unit: int, rows: Rows, bad: list[Bad]) -> None:
        """Keep a unit."""
        told = [(writable(name), writable(reason)) for name, reason in bad]
        write_rows(self.path(unit), [rows], rows.vectors.shape[1], {"bad": told})

    def bad(self, unit: int) -> list[Bad]:
        """The unreadable videos of a unit."""
        return [(name, reason) for name, reason in part_metadata(self.path(unit))["bad"]]

    def clips(self, unit: int) -> int:
        """The number of rows of a unit."""
        return row_count(self.path(unit))

    def facts(self) -> Facts | None:
        """What the kept units belong to; None where there are none. ValueError where that cannot be read."""
        path = self.folder / PLAN
        if not path.is_file():
            return None
        try:
            return Facts.model_validate_json(path.read_text(encoding="utf-8"))
        except (ValidationError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not the plan of a run of this version; delete {self.folder}") from error

    def begin(self, facts: Facts) -> bool:
        """Make the folder for this plan, or find it as a run before left it; False where `out` is finished already.

        ValueError where either belongs to another plan. Call it under `locked`.
        """
        if self.out.exists():
            there = read_facts(self.out)
            if there.plan != facts.plan:
                if self.facts() is None:
                    self.remove()
                raise ValueError(
                    f"{self.out}: is there already, with other content ({difference(there, facts)}); "
                    "replace it with --fresh, or choose another -o"
                )
            return False
        kept = self.facts()
        if kept is not None and kept.plan != facts.plan:
            raise ValueError(
                f"{self.folder}: holds work of another run ({difference(kept, facts)}); "
                "start again with --fresh, or choose another -o"
            )
        if kept is None:
            write_text(self.folder / PLAN, facts.model_dump_json(indent=1))
        return True

    def clear(self) -> None:
        """Throw away what is there: `out` and its units."""
        self.out.unlink(missing_ok=True)
        self.remove()

    def merge(self, facts: Facts, count: int) -> int:
        """Put `count` units together in order; returns the number of rows. Call it under `locked`."""
        metadata: dict[str, Any] = facts.model_dump(mode="json")
        rows = write_rows(self.out, (read_part(self.path(unit)) for unit in range(count)), facts.width, metadata)
        self.remove()
        return rows

    def remove(self) -> None:
        """Take the folder away. What another process holds open on a network drive may stay behind, empty."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Inside, no other process plans or merges; waits until that is so. The folder is there."""
        file = _wait_for(self.folder)
        try:
            yield
        finally:
            file.close()

    @contextmanager
    def working(self, shard: tuple[int, int]) -> Iterator[None]:
        """Inside, no other process works on this shard. ValueError where one does."""
        name = f"{shard[0]}-of-{shard[1]}"
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f".shard-{name}").open("w") as file:
            if not _lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
                raise ValueError(f"{self.out}: another process makes it; wait for that one, or choose another -o")
            yield


def difference(there: Facts, wanted: Facts) -> str:
    """The first fact in which two plans differ, in words."""
    old, new = there.model_dump(), wanted.model_dump()
    for name in ("pooling", "clip", "sampler", "windows", "precision", "device", "batch", "videos"):
        if old[name] != new[name]:
            return f"{name} was {_words(old[name])}, now {_words(new[name])}"
    if there.fingerprint != wanted.fingerprint:  # after pooling and clip, which are part of it
        return f"made with another model, {there.model}"
    return "its videos had other names, sizes or times of change"


def _words(value: Any) -> str:
    """A value, or the fields of a spec that are set: `seconds 2.0`."""
    if not isinstance(value, dict):
        return str(value)
    return ", ".join(f"{name} {field}" for name, field in value.items() if field is not None) or "the model's own"


def _wait_for(folder: Path) -> IO[str]:
    """The lock of a folder that another process may remove while we wait for it."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            file = (folder / LOCK).open("w")
        except FileNotFoundError:
            continue
        _lock(file, fcntl.LOCK_EX)
        try:
            if os.path.samestat(os.fstat(file.fileno()), os.stat(folder / LOCK)):
                return file
        except FileNotFoundError:
            pass
        file.close()


def _lock(file: IO[str], how: int) -> bool:
    """Whether the lock was got. A file system without locks gives it to everybody."""
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True
