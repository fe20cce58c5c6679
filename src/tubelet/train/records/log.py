"""log.jsonl (one JSON record per step, and one per epoch that was evaluated) and TensorBoard beside it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from torch.utils.tensorboard import SummaryWriter

from tubelet.disk.write import sync_open, write_text
from tubelet.train.records.throughput import Speed

LOG: Final = "log.jsonl"
TENSORBOARD: Final = "tensorboard"
_NOT_DRAWN: Final = frozenset({"step", "epoch", "skipped"})


class RunLog:
    """Appends records to the log of a run folder, from which everything after `step` was cut off first.

    Numbers are written so that they read back as the same float.
    """

    def __init__(self, out: Path, *, step: int) -> None:
        self.path = out / LOG
        kept = [record for record in read_log(self.path) if record["step"] <= step]
        self.evaluated = {record["epoch"] for record in kept if "evaluation" in record}
        write_text(self.path, "".join(_line(record) for record in kept))
        if step == 0:
            shutil.rmtree(out / TENSORBOARD, ignore_errors=True)
        self._file = self.path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(out / TENSORBOARD), purge_step=step + 1)

    def write_step(self, record: Mapping[str, Any]) -> None:
        """One step: "step", "epoch" and numbers by name."""
        self._file.write(_line(record))
        for name, value in record.items():
            if name not in _NOT_DRAWN:
                self._board.add_scalar(f"train/{name}", value, record["step"])

    def write_evaluation(self, step: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """What was measured after `epoch` (counted from 0), whose last step was `step`."""
        self._file.write(_line({"step": step, "epoch": epoch, "evaluation": dict(metrics)}))
        self._file.flush()
        for name, value in metrics.items():
            self._board.add_scalar(f"evaluation/{name}", value, step)
        self.evaluated.add(epoch)

    def draw_speed(self, step: int, speed: Speed) -> None:
        """How fast the run goes, in TensorBoard alone: the log of a run that is repeated stays the same."""
        self._board.add_scalar("speed/clips_per_second", speed.clips_per_second, step)
        self._board.add_scalar("speed/waiting_ratio", speed.waiting_ratio, step)
        self._board.add_scalar("speed/teraflops_per_device", speed.teraflops, step)
        if speed.mfu is not None:
            self._board.add_scalar("speed/mfu", speed.mfu, step)

    def flush(self) -> None:
        """Let others see what was written."""
        self._file.flush()

    def sync(self) -> None:
        """Be sure that what was written survives a crash: before a checkpoint claims its step."""
        sync_open(self._file)
        self._board.flush()

    def close(self) -> None:
        """Write what is left and let go of the files."""
        try:
            self._file.close()
        finally:
            self._board.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """Records of a log; a last line that a crash cut short is left out, and so is a missing file."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise ValueError(f"{path}:{number}: not a record; the log was edited or damaged") from error
    return records


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, allow_nan=False) + "\n"
