"""What a run tells whoever looks on. The command line draws it, tests collect it, nothing below prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class RunFacts:
    """What is known before the first step. `first_step` is 1, or the step after the checkpoint resumed from.

    `views` clips are taken from each video that is decoded: an epoch counts as so many effective epochs.
    """

    name: str
    out: Path
    first_step: int
    total_steps: int
    steps_per_epoch: int
    videos: int
    parameters: int
    device: str
    precision: str
    views: int = 1


@dataclass(frozen=True)
class StepReport:
    """Where the run stands, every `run.log_every` steps. `loss` is None where every file of the step was bad.

    `waiting_ratio` is the share of time since the last report that was spent waiting for data. `teraflops` are those of
    the model in a second on one device, `mfu` their share of what the device can at best, None where that is unknown.
    """

    step: int
    total: int
    epoch: int
    loss: float | None
    learning_rate: float
    clips_per_second: float
    waiting_ratio: float
    seconds_left: float
    teraflops: float = 0.0
    mfu: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class Watch(Protocol):
    """Looks on while a run works; a call must be quick, for the run waits for it."""

    def start(self, facts: RunFacts) -> None:
        """The run is about to take its first step."""

    def step(self, report: StepReport) -> None:
        """Some steps were taken."""

    def say(self, line: str) -> None:
        """Something a person should know: a skipped file, a checkpoint resumed from, results of an epoch."""

    def finish(self) -> None:
        """The run ended, by its last step, an error or a signal. Called once if `start` was."""


class SilentWatch:
    """Looks away."""

    def start(self, facts: RunFacts) -> None:
        """Ignore."""

    def step(self, report: StepReport) -> None:
        """Ignore."""

    def say(self, line: str) -> None:
        """Ignore."""

    def finish(self) -> None:
        """Ignore."""
