"""Work in pieces that may be done by many processes and killed at any time: `OUT.parts/` beside the file it becomes.

    OUT.parts/plan.json  unit-000000.parquet  unit-000001.parquet  ...

A unit is there whole or not at all. When all are there they are put together in order, and the folder goes.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from tubelet.disk.lock import LOCK, held, waited_for
from tubelet.disk.tables import read_csv, write_csv
from tubelet.disk.write import write_text
from tubelet.inference.embed.store import Facts, Rows, part_metadata, read_facts, read_part, row_count, write_rows
from tubelet.names import writable

PLAN: Final = "plan.json"

Bad = tuple[str, str]
"""Name of a video that could not be read, and why."""


class WorkUnits:
    """The units of the file `out` that are done, and what they are to become."""

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

    def merge(self, facts: Facts) -> int:
        """Put all units together in order; returns the number of rows. Call it under `locked`."""
        metadata: dict[str, Any] = facts.model_dump(mode="json")
        rows = write_rows(self.out, (read_part(self.path(unit)) for unit in range(facts.units)), facts.width, metadata)
        self.remove()
        return rows

    def remove(self) -> None:
        """Take the folder away. What another process holds open on a network drive may stay behind, empty."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def check_skipped(self, units: Sequence[int], facts: Facts, *, max_skipped: float) -> tuple[Bad, ...]:
        """The unreadable videos of these units, which are written down beside `out`.

        ValueError where they are more than the share `max_skipped` of all videos, or all of them.
        """
        skipped = tuple(bad for unit in units for bad in self.bad(unit))
        listed = skipped_file(self.out)
        write_csv(listed, ("path", "reason"), skipped)
        if len(skipped) > max_skipped * facts.videos:
            raise ValueError(
                f"{len(skipped)} of {facts.videos} videos cannot be read, more than --max-skipped {max_skipped:g} "
                f"allows; {listed} says why; finished work is kept"
            )
        if len(skipped) == facts.videos:
            raise ValueError(f"none of the {facts.videos} videos can be read; {listed} says why")
        return skipped

    def locked(self) -> AbstractContextManager[None]:
        """Inside, no other process plans or merges; waits until that is so. The folder is there."""
        return waited_for(self.folder / LOCK)

    @contextmanager
    def working(self, shard: tuple[int, int]) -> Iterator[None]:
        """Inside, no other process works on this shard. ValueError where one does."""
        name = f"{shard[0]}-of-{shard[1]}"
        self.folder.mkdir(parents=True, exist_ok=True)
        taken = f"{self.out}: another process makes it; wait for that one, or choose another -o"
        with held(self.folder / f".shard-{name}", taken):
            yield


def skipped_file(out: Path) -> Path:
    """Where the unreadable videos of `out` are listed: `OUT.skipped.csv` (path, reason)."""
    return out.with_suffix(".skipped.csv")


def read_skipped(out: Path) -> tuple[Bad, ...]:
    """The list; empty where there is no file."""
    return tuple((row["path"], row["reason"]) for row in read_csv(skipped_file(out)))


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
