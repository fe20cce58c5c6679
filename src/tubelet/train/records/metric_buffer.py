"""Losses of the last steps, left on the device until they are read together."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from tubelet.disk.lock import write_text
from tubelet.names import one_line, writable

NON_FINITE: Final = "nonfinite.json"
_SHOWN_FILES: Final = 6


@dataclass(frozen=True)
class StepRecord:
    """A step that was taken. Tensors are scalars on the device, but for `index`: the videos by stream, on the host."""

    step: int
    epoch: int
    learning_rate: float
    loss: Tensor
    grad_norm: Tensor
    metrics: Mapping[str, Tensor]
    index: Mapping[str, Tensor]


class MetricBuffer:
    """Collects steps, and reads them with one look at the device. `name_of(stream, index)` gives a video's file."""

    def __init__(self, out: Path, *, name_of: Callable[[str, int], str]) -> None:
        self._out, self._name_of = out, name_of
        self._pending: list[StepRecord | dict[str, Any]] = []

    def add(self, taken: StepRecord) -> None:
        """A step with an update."""
        self._pending.append(taken)

    def add_skipped(self, *, step: int, epoch: int, learning_rate: float, files: int) -> None:
        """A step without one, for all of its files were bad."""
        self._pending.append({"step": step, "epoch": epoch, "lr": learning_rate, "skipped": files})

    def read(self) -> list[dict[str, Any]]:
        """Records of the steps since the last call; ValueError at the first whose loss or gradient is not finite."""
        pending, self._pending = self._pending, []
        scalars = [
            x
            for one in pending
            if isinstance(one, StepRecord)
            for x in (one.loss, one.grad_norm, *one.metrics.values())
        ]
        numbers = iter(torch.stack([x.detach().double() for x in scalars]).tolist() if scalars else [])
        return [self._record(one, numbers) if isinstance(one, StepRecord) else one for one in pending]

    def _record(self, taken: StepRecord, numbers: Any) -> dict[str, Any]:
        loss, norm = next(numbers), next(numbers)
        metrics = {name: next(numbers) for name in taken.metrics}
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise ValueError(self._complaint(taken, loss, norm))
        known = {name: value for name, value in metrics.items() if math.isfinite(value)}
        rate = taken.learning_rate
        return {"step": taken.step, "epoch": taken.epoch, "loss": loss, "lr": rate, "grad_norm": norm, **known}

    def _complaint(self, taken: StepRecord, loss: float, norm: float) -> str:
        """Names the files of the step: a list where there is one stream, and one by stream where there are several."""
        files = {name: self._files(name, index) for name, index in taken.index.items()}
        [only, *others] = files.values()
        facts = {"step": taken.step, "loss": str(loss), "grad_norm": str(norm), "files": files if others else only}
        write_text(self._out / NON_FINITE, json.dumps(facts, indent=1) + "\n")
        named = "; ".join(f"{name}: {_listed(some)}" for name, some in files.items()) if others else _listed(only)
        return (
            f"step {taken.step}: loss {loss}, gradient norm {norm}, which is not finite; nothing of it was saved; "
            f"files of the batch: {named}; lower optim.lr or set optim.clip_grad, and start with --fresh"
        )

    def _files(self, stream: str, index: Tensor) -> list[str]:
        return list(dict.fromkeys(writable(self._name_of(stream, one)) for one in index.tolist()))


def _listed(files: Sequence[str]) -> str:
    more = f" and {len(files) - _SHOWN_FILES} more, see {NON_FINITE}" if len(files) > _SHOWN_FILES else ""
    return ", ".join(map(one_line, files[:_SHOWN_FILES])) + more
