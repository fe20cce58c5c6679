"""Which files of a set can be read: every file is decoded in full, in processes that may crash or hang."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from tubelet.video.read import BadVideo, VideoInfo, open_video


@dataclass(frozen=True)
class Report:
    """What decoding a file gave: `reason` says why it is broken (empty: readable), `frames` how many came before that.

    `info` is None where the file could not even be opened.
    """

    frames: int
    info: VideoInfo | None
    reason: str = ""

    @property
    def is_readable(self) -> bool:
        return not self.reason


def examine(path: Path) -> Report:
    """Decode a file in full."""
    info = None
    try:
        with open_video(path) as video:
            info = video.info
            frames = video.check()
    except BadVideo as bad:
        return Report(bad.good_frames, info, bad.reason)
    return Report(frames, replace(info, frames=frames))


def scan(
    paths: Sequence[Path],
    *,
    workers: int,
    limit_seconds: float,
    examine: Callable[[Path], Report] = examine,
) -> Iterator[tuple[int, Report]]:
    """(place in `paths`, report) in the order in which they are done.

    A file that kills its process, or takes longer than `limit_seconds`, is reported as broken; the others go on.
    """
    waiting = list(enumerate(paths))[::-1]
    team = [_Worker(examine) for _ in range(min(workers, len(paths)))]
    try:
        while team:
            _wait(team, limit_seconds)
            for worker in list(team):
                done = worker.look(limit_seconds)
                if done is not None:
                    yield done
                if worker.is_gone:
                    worker.stop()
                    team.remove(worker)
                    if waiting:
                        team.append(_Worker(examine))
                elif worker.is_free and waiting:
                    worker.give(*waiting.pop())
                elif worker.is_free:
                    worker.stop()
                    team.remove(worker)
    finally:
        for worker in team:
            worker.stop()


def _wait(team: list[_Worker], limit_seconds: float) -> None:
    """Until a worker says something, dies, or is over its time."""
    now = time.monotonic()
    left = [worker.started + limit_seconds - now for worker in team if worker.place is not None]
    wait([worker.connection for worker in team], timeout=max(min(left), 0.0) if left else None)


class _Worker:
    """A process with one file at a time. `place` is what it works on; it is free once it has said that it is ready."""

    def __init__(self, examine: Callable[[Path], Report]) -> None:
        context = multiprocessing.get_context("spawn")  # a forked FFmpeg may inherit locks of the parent's threads
        self.connection, far_end = context.Pipe()
        self.process: SpawnProcess = context.Process(target=_work, args=(far_end, examine), daemon=True)
        self.process.start()
        far_end.close()
        self.place: int | None = None
        self.started = 0.0
        self.is_free = False
        self.is_gone = False

    def give(self, place: int, path: Path) -> None:
        self.place, self.started, self.is_free = place, time.monotonic(), False
        self.connection.send(path)

    def look(self, limit_seconds: float) -> tuple[int, Report] | None:
        """Its report, if there is one by now."""
        place = self.place
        try:
            if self.connection.poll():
                report = self.connection.recv()
                self.place, self.is_free = None, True
                return None if place is None else (place, report)
        except (EOFError, OSError):
            self.is_gone = True
            self.process.join(5)
            if place is None:
                raise RuntimeError(f"a scan process died before its first file ({self._death()})") from None
            return place, Report(0, None, f"decoding it kills the process ({self._death()})")
        if place is not None and time.monotonic() - self.started > limit_seconds:
            self.is_gone = True
            return place, Report(0, None, f"not decoded within {limit_seconds:g} seconds")
        return None

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()

    def _death(self) -> str:
        code = self.process.exitcode
        return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"


def _work(connection: Connection, examine: Callable[[Path], Report]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    connection.send(None)
    while True:
        try:
            path = connection.recv()
        except EOFError:
            return
        connection.send(examine(path))
