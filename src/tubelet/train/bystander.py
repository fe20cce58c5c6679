"""What stands for the journal in all ranks but the first: rank 0 writes, speaks and refuses for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tubelet.data.dataset import Loaded
from tubelet.train.log import LOG, read_log
from tubelet.train.tally import Taken


class Bystander:
    """Writes nothing. It measures after the same epochs as rank 0, for they share the videos."""

    def __init__(self, out: Path, *, step: int) -> None:
        records = [record for record in read_log(out / LOG) if record["step"] <= step]
        self._evaluated = {record["epoch"] for record in records if "evaluation" in record}

    def note_skipped(self, loaded: Loaded, step: int) -> None:
        """Nothing: rank 0 counts those of all ranks."""

    def add(self, taken: Taken, *, clips: int) -> None:
        """Nothing."""

    def add_skipped(self, *, step: int, epoch: int, learning_rate: float, files: int) -> None:
        """Nothing."""

    def begin(self) -> None:
        """Nothing."""

    def read(self, *, waited_seconds: float) -> None:
        """Nothing: where the loss is not finite, rank 0 stops all."""

    def evaluate(self, step: int, epoch: int, measure: Callable[[int], Mapping[str, float]]) -> None:  # noqa: ARG002
        """Measure its part, unless the log says that it was done."""
        if epoch not in self._evaluated:
            measure(epoch)
            self._evaluated.add(epoch)

    def sync(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
