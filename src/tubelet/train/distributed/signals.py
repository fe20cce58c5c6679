"""Ctrl-C, SIGTERM and SIGUSR1 (a scheduler's warning) ask a run to stop after the step it is in.

Windows has no SIGUSR1; Ctrl-Break (SIGBREAK) asks there, too.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

STOPPING: Final = tuple(one for one in signal.Signals if one.name in {"SIGINT", "SIGTERM", "SIGUSR1", "SIGBREAK"})


class Interrupted(Exception):  # noqa: N818  not an error: the run saved its state and can be continued
    """The run was asked to stop, and its state is saved. `signal` is the number of what asked.

    `step` is the last one that was taken; None where it stopped between two runs.
    """

    def __init__(self, number: int, *, step: int | None = None) -> None:
        after = "" if step is None else f" after step {step}"
        super().__init__(f"stopped by {signal.Signals(number).name}{after}; run again to continue")
        self.signal = number
        self.step = step


class StopRequest:
    """Holds the signal that asked to stop, None while none did."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._asked = 0.0

    def receive(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  handlers are given the frame
        """Handler: the first signal asks; a later Ctrl-C stops at once, without saving.

        Some runners (make, timeout) deliver one request twice, so a repetition counts only after a second.
        """
        if self.signal is None:
            self.signal, self._asked = number, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._asked > 1:
            raise KeyboardInterrupt


@contextmanager
def stops_at_once() -> Iterator[None]:
    """Inside, Ctrl-C, SIGTERM and SIGUSR1 raise `Interrupted`, but for where a `stop_request` takes note of them.

    For work between runs that leaves nothing half done. Outside the main thread nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _raise) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  handlers are given the frame
    raise Interrupted(number)


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Inside, Ctrl-C, SIGTERM and SIGUSR1 are noted; the handlers from before are put back on leaving.

    Outside the main thread signals cannot be caught: the request then stays empty.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.receive) for number in STOPPING}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
