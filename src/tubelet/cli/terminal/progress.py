"""Draws work on clips in the terminal: bar, clips/s, time left; at the end what it took."""

from __future__ import annotations

import time
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from tubelet.names import one_line

LINES_WITHOUT_TERMINAL = 20


class RichProgress:
    """A `tubelet.inference.progress.Progress` for people: a live bar on a terminal, else about twenty plain lines."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._what, self._unit = "", ""
        self._total = self._done = self._clips = self._next_line = 0
        self._started: float | None = None

    def begin(self, what: str, total: int, unit: str) -> None:
        self.end()
        self._what, self._unit, self._total = what, unit, total
        self._done = self._clips = 0
        self._next_line = max(1, total // LINES_WITHOUT_TERMINAL)
        self._started = time.monotonic()
        if self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn())
            state = TextColumn("{task.fields[state]}")
            self._bar = Progress(*columns, state, console=self.console, transient=True)
            self._task = self._bar.add_task(what, total=total, state=unit)
            self._bar.start()

    def advance(self, done: int, clips: int) -> None:
        self._done += done
        self._clips += clips
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done, state=f"{self._unit}{self._pace()}")
        elif self._done >= self._next_line:
            self._next_line = self._done + max(1, self._total // LINES_WITHOUT_TERMINAL)
            self.say(f"{self._what}: {self._done:,}/{self._total:,} {self._unit}{self._pace()}")

    def say(self, line: str) -> None:
        console = self.console if self._bar is None else self._bar.console
        console.print(one_line(line), highlight=False, markup=False, soft_wrap=True)

    def end(self) -> None:
        """Take the bar away and say what the work took, once; nothing where none was begun."""
        if self._started is None:
            return
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = None
        seconds = self._seconds()
        self._started = None
        if self._clips:
            rate = f"{self._clips / seconds:.1f} clips/s"
            self.say(f"{self._what}: {self._clips:,} clips in {seconds:.1f} s ({rate})")

    def _pace(self) -> str:
        """Clips a second so far, and the time left at the pace of what is done so far."""
        seconds = self._seconds()
        left = "" if not self._done else f"  left {timedelta(seconds=round(self._seconds_left(seconds)))}"
        rate = f"  {self._clips / seconds:.1f} clips/s" if self._clips else ""
        return rate + left

    def _seconds_left(self, seconds: float) -> float:
        return seconds / self._done * max(self._total - self._done, 0)

    def _seconds(self) -> float:
        return max(time.monotonic() - (self._started or 0.0), 1e-6)
