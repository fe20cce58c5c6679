"""Work on files in processes that may crash or hang: one such file costs only itself."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")

Beat = Callable[[float], None]
"""What a piece of work may call with how far it has come: the time that it is allowed starts again."""


@dataclass(frozen=True)
class Lost:
    """A piece of work that killed its process or took too long: which of the two, in words."""

    reason: str


@dataclass(frozen=True)
class Advance:
    """How far a piece of work has come, as it says itself."""

    amount: float


def each(
    tasks: Sequence[TaskT],
    work: Callable[[TaskT, Beat], ResultT],
    *,
    workers: int,
    limit_seconds: float,
) -> Iterator[tuple[int, ResultT | Lost | Advance]]:
    """(place in `tasks`, result) in the order in which they are done, and progress in between.

    `work` runs in `workers` processes, started afresh (spawned); a task that kills its process, or gives no sign for
    `limit_seconds`, is `Lost`, and the others go on.
    """
    waiting = list(enumerate(tasks))[::-1]
    team: list[_Worker] = [_Worker(work) for _ in range(min(workers, len(tasks)))]
    try:
        while team:
            _wait(team, limit_seconds)
            for worker in list(team):
                said = worker.look(limit_seconds)
                if said is not None:
                    yield said
                if worker.is_gone:
                    worker.stop()
                    team.remove(worker)
                    if waiting:
                        team.append(_Worker(work))
                elif worker.is_free and waiting:
                    worker.give(*waiting.pop())
                elif worker.is_free:
                    worker.stop()
                    team.remove(worker)
    finally:
        for worker in team:
            worker.stop()


def _wait(team: Sequence[_Worker], limit_seconds: float) -> None:
    """Until a worker says something, dies, or is over its time."""
    now = time.monotonic()
    left = [worker.heard + limit_seconds - now for worker in team if worker.place is not None]
    wait([worker.connection for worker in team], timeout=max(min(left), 0.0) if left else None)


class _Worker:
    """A process with one task at a time. `place` is what it works on; it is free once it has said that it is ready."""

    def __init__(self, work: Callable[[Any, Beat], Any]) -> None:
        context = multiprocessing.get_context("spawn")  # a forked FFmpeg may inherit locks of the parent's threads
        self.connection, far_end = context.Pipe()
        self.process: SpawnProcess = context.Process(target=_serve, args=(far_end, work), daemon=True)
        self.process.start()
        far_end.close()
        self.place: int | None = None
        self.heard = 0.0
        self.is_free = False
        self.is_gone = False

    def give(self, place: int, task: Any) -> None:
        self.place, self.heard, self.is_free = place, time.monotonic(), False
        self.connection.send(task)

    def look(self, limit_seconds: float) -> tuple[int, Any] | None:
        """What it has said, if anything by now, and whether it is lost."""
        place = self.place
        try:
            if self.connection.poll():
                return self._hear(place, self.connection.recv())
        except (EOFError, OSError):
            self.is_gone = True
            self.process.join(5)
            if place is None:
                raise RuntimeError(f"a process died before its first file ({self._death()})") from None
            return place, Lost(f"decoding it kills the process ({self._death()})")
        if place is not None and time.monotonic() - self.heard > limit_seconds:
            self.is_gone = True
            return place, Lost(f"not decoded within {limit_seconds:g} seconds")
        return None

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()

    def _hear(self, place: int | None, said: Any) -> tuple[int, Any] | None:
        if isinstance(said, Advance):
            self.heard = time.monotonic()
        else:
            self.place, self.is_free = None, True
        return None if place is None else (place, said)

    def _death(self) -> str:
        code = self.process.exitcode
        return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"


def _serve(connection: Connection, work: Callable[[Any, Beat], Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    connection.send(None)
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        connection.send(work(task, lambda amount: connection.send(Advance(amount))))
