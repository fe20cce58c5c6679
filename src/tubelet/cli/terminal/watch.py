"""Draws a run in the terminal: bar, loss, clips/s, use of the device, share of time waiting for data, time left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from tubelet.names import one_line
from tubelet.train.distributed.heartbeat import LOST
from tubelet.train.distributed.process_group import RankLost, is_main
from tubelet.train.distributed.signals import Interrupted
from tubelet.train.records.watch import RunFacts, StepReport

LINES_WITHOUT_TERMINAL = 20


class RichWatch:
    """A `Watch` for people: a live bar on a terminal, about twenty plain lines a run elsewhere."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._next_line = 0

    def start(self, facts: RunFacts) -> None:
        self._next_line = 0
        self.say(
            f"{facts.name}: {facts.videos:,} videos, {facts.parameters / 1e6:.2f} M parameters, "
            f"{facts.total_steps:,} steps ({facts.steps_per_epoch} an epoch) on {facts.device} in {facts.precision}"
        )
        if facts.views > 1:
            epochs = facts.total_steps // facts.steps_per_epoch
            self.say(f"{facts.views} clips of each decoded video: {epochs} x {facts.views} effective epochs")
        if facts.first_step > 1:
            self.say(f"going on after step {facts.first_step - 1}")
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[state]}"),
                console=self.console,
                transient=True,
            )
            self._task = self._bar.add_task(
                facts.name, total=facts.total_steps, completed=facts.first_step - 1, state=""
            )
            self._bar.start()

    def step(self, report: StepReport) -> None:
        state = _state(report)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=report.step, state=state)
        elif report.step >= self._next_line or report.step == report.total:
            self._next_line = report.step + max(1, report.total // LINES_WITHOUT_TERMINAL)
            self.say(f"step {report.step}/{report.total}  {state}")

    def say(self, line: str) -> None:
        console = self.console if self._bar is None else self._bar.console
        console.print(one_line(line), highlight=False, markup=False, soft_wrap=True)

    def finish(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _state(report: StepReport) -> str:
    loss = "no readable file" if report.loss is None else f"loss {report.loss:.4f}"
    others = "".join(f"  {name} {value:.3f}" for name, value in report.metrics.items())
    mfu = "" if report.mfu is None else f" ({report.mfu:.0%} MFU)"
    left = timedelta(seconds=round(report.seconds_left))
    return (
        f"epoch {report.epoch}  {loss}{others}  lr {report.learning_rate:.2e}  "
        f"{report.clips_per_second:.1f} clips/s  {report.teraflops:.3g} TFLOP/s{mfu}  "
        f"waiting {report.waiting_ratio:.0%}  left {left}"
    )


@contextmanager
def training(folder: Path) -> Iterator[RichWatch]:
    """A watch for a run in `folder`; a run stopped by a signal ends in one line and the exit code 128 + signal.

    Exit code 75 where another process of the run vanished: starting again may well help.
    """
    watch = RichWatch()
    try:
        yield watch
    except Interrupted as stop:
        if is_main():
            watch.say(f"{folder}: {stop}")
        raise typer.Exit(128 + stop.signal) from None
    except RankLost as lost:
        watch.say(f"{folder}: {lost}")
        raise typer.Exit(LOST) from None
    finally:
        watch.finish()
