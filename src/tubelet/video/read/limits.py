"""What reading one file may cost: time, pixels, frames, memory. A file that wants more is given up, with the reason."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tubelet.video.read.errors import BadVideo

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

ALARM: Final = signal.Signals.__members__.get("SIGALRM")
"""The signal by which `end_after` ends a process; None on Windows, which has none."""
MEMORY_BYTES: Final = 4 * 2**30
"""What reading one file may add to the memory of a process that does nothing else."""
_STATM: Final = Path("/proc/self/statm")


@dataclass(frozen=True)
class Limits:
    """Bounds for one opening of a file: `seconds` in all (None: no bound), `pixels` of a frame, `frames` in all."""

    seconds: float | None = None
    pixels: int = 2**26
    frames: int = 2**23


class Clock:
    """The time that is left for a file, counted from its making."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self._path, self._seconds = path, limits.seconds
        self._end = float("inf") if limits.seconds is None else time.monotonic() + limits.seconds

    def check(self) -> None:
        """BadVideo where no time is left. Takes a tenth of a microsecond, so that it can be called for each packet."""
        if time.monotonic() > self._end:
            raise BadVideo(self._path, f"not read within {self._seconds:g} seconds")


@contextmanager
def last_resort(*, seconds: float | None, memory_bytes: int) -> Iterator[None]:
    """Inside, this process is ended by SIGALRM after `seconds`, and cannot take more than so much memory on top.

    For processes that only read videos: it is what ends a decoder that never comes back, which no exception can.
    A refused allocation is an error of that file. Shared memory and mapped files do not count. Main thread only.
    What a system lacks of this (see `lacking_limits`) has no bound there.
    """
    with _memory_limit(memory_bytes):
        if seconds is not None:
            end_after(seconds)
        try:
            yield
        finally:
            if seconds is not None:
                end_after(0.0)


def end_after(seconds: float) -> None:
    """Have the system end this process after `seconds`, whatever it hangs in; 0 calls that off. Main thread only.

    On Windows nothing happens.
    """
    if ALARM is not None:
        signal.signal(ALARM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)


def lacking_limits() -> tuple[str, ...]:
    """What a file may take without a bound on this system: "time" (Windows), "memory" (all but Linux)."""
    has_memory_limit = resource is not None and _STATM.exists()
    return (*(("time",) if ALARM is None else ()), *(() if has_memory_limit else ("memory",)))


@contextmanager
def _memory_limit(memory_bytes: int) -> Iterator[None]:
    if resource is None:
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, _ceiling(memory_bytes, before))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _ceiling(memory_bytes: int, before: tuple[int, int]) -> tuple[int, int]:
    """The (soft, hard) limit of private memory: what there is now and `memory_bytes` more, if that is lower."""
    soft, hard = before
    try:
        pages = int(_STATM.read_text().split()[5])
    except OSError:
        return before
    ceiling = pages * resource.getpagesize() + memory_bytes
    return (ceiling if soft == resource.RLIM_INFINITY else min(ceiling, soft)), hard
