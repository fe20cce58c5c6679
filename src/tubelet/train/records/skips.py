"""skipped.csv: the videos a run could not read, each once, with the reason; and the cap on how many."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tubelet.data.dataset import Skipped
from tubelet.data.mixture import Mixture
from tubelet.disk.tables import SKIPPED, Cell, append_csv, read_csv, write_csv
from tubelet.names import writable

_COLUMNS: Final = ("path", "reason", "first_step")
_SOURCE: Final = "source"


class Skips:
    """Notes videos that were skipped. Those noted after `step`, from which the run goes on, are forgotten.

    With a `mixture` they are told apart by their source, too, which the file then names. More than the share
    `max_skipped` of all `count` videos is a ValueError.
    """

    def __init__(self, out: Path, *, step: int, count: int, max_skipped: float, mixture: Mixture | None = None) -> None:
        self.path = out / SKIPPED
        self.count, self.max_skipped, self._mixture = count, max_skipped, mixture
        columns = _COLUMNS if mixture is None else (*_COLUMNS, _SOURCE)
        kept = [row for row in read_skipped(self.path) if int(row["first_step"]) <= step]
        self._known = {(row["path"], row.get(_SOURCE, "")) for row in kept}
        write_csv(self.path, columns, ([row.get(name, "") for name in columns] for row in kept))

    def __len__(self) -> int:
        return len(self._known)

    def source_of(self, one: Skipped) -> str:
        """The name of its source; none without a mixture."""
        return "" if self._mixture is None else self._mixture.source_of(one.index)

    def count_of(self, source: str) -> int:
        """How many videos of a source were skipped so far."""
        return sum(known[1] == source for known in self._known)

    def note(self, skipped: Iterable[Skipped], step: int) -> tuple[Skipped, ...]:
        """Write down the new ones among these, and return them; ValueError where they are too many now."""
        named = {(writable(str(one.path)), self.source_of(one)): one for one in skipped}
        new = {name: one for name, one in named.items() if name not in self._known}
        if not new:
            return ()
        self._known |= new.keys()
        append_csv(self.path, (self._row(name, one, step) for name, one in new.items()))
        if len(self) > self.max_skipped * self.count:
            raise ValueError(
                f"{len(self)} of {self.count} videos cannot be read, more than data.max_skipped={self.max_skipped:g} "
                f"allows; {self.path} names them and says why"
            )
        return tuple(new.values())

    def _row(self, name: tuple[str, str], one: Skipped, step: int) -> list[Cell]:
        path, source = name
        return [path, " ".join(one.reason.split()), step, *([] if self._mixture is None else [source])]


def read_skipped(path: Path) -> list[dict[str, str]]:
    """Rows of a skipped.csv (path, reason, first_step, and the source where there are several).

    None where there is no file; a line cut short is left out.
    """
    return [row for row in read_csv(path) if row.get("first_step", "").isdigit()]
