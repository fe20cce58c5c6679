"""Reading in worker processes that a file may crash or hang: that costs the file and a moment, not the run."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

import torch
from torch.utils.data import get_worker_info

from tubelet.data.dataset import Skipped
from tubelet.video.lists.manifest import VideoRef
from tubelet.video.read.limits import ALARM, MEMORY_BYTES, last_resort

_CRASH_NAMES: Final = frozenset({"SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE", "SIGILL"})
CRASHES: Final = frozenset(one for one in signal.Signals if one.name in _CRASH_NAMES)
"""Signals that a process brings upon itself: the file it was reading is to blame. SIGKILL comes from elsewhere."""
_CHILD_ENDED: Final = signal.Signals.__members__.get("SIGCHLD")  # None on Windows


@runtime_checkable
class TrainingSet(Protocol):
    """A data set read by (epoch, index) keys; `videos` are in the order of the indices.

    An epoch takes as many of them as its length: each once, unless a mixture chooses (`tubelet.data.mixture`).
    """

    @property
    def videos(self) -> Sequence[VideoRef]:
        """The video of each index."""

    def __len__(self) -> int:
        """How many videos an epoch takes."""

    def __getitem__(self, key: tuple[int, int]) -> Any:
        """What `tubelet.data.dataset.collate` takes: a sample, or why there is none."""


class GuardedDataset:
    """A data set whose videos are read within limits where a worker process reads them.

    A worker ends itself when a file takes more than `seconds` by far: a file that is merely slow is given up by its
    reader before that. `blame` notes the file that a dead process was reading; workers that are started afterwards
    leave it out, as `Skipped` with the reason.
    """

    def __init__(self, dataset: TrainingSet, *, workers: int, seconds: float | None) -> None:
        self._dataset, self._seconds = dataset, seconds
        self._given_up: dict[int, str] = {}
        self._reading = torch.full((workers, 2), -1, dtype=torch.int64).share_memory_()  # process, index

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, key: tuple[int, int]) -> Any:
        index = key[1]
        if index in self._given_up:
            video = self._dataset.videos[index]
            return Skipped(index, video.name, video.where, self._given_up[index])
        worker = get_worker_info()
        if worker is None:
            return self._dataset[key]
        row = self._reading[worker.id]
        row[0], row[1] = multiprocessing.current_process().pid or -1, index
        with last_resort(seconds=self._hard_seconds, memory_bytes=MEMORY_BYTES):
            item = self._dataset[key]
        row[1] = -1
        return item

    def read_by(self, process: BaseProcess) -> Path | None:
        """The file that a worker was reading when it died; None where it was not reading."""
        index = self._index_of(process)
        return None if index is None else self._dataset.videos[index].path

    def blame(self, process: BaseProcess) -> bool:
        """Give up the file that a dead worker was reading, if the file is what killed it; whether it was."""
        index, code = self._index_of(process), process.exitcode
        if index is None or code is None or code >= 0:
            return False
        if -code == ALARM:
            self._given_up[index] = f"not read within {self._seconds:g} seconds: the decoder hangs"
        elif -code in CRASHES:
            self._given_up[index] = f"reading it kills the process ({signal.Signals(-code).name})"
        return index in self._given_up

    @property
    def _hard_seconds(self) -> float | None:
        return None if self._seconds is None else 1.25 * self._seconds + 1

    def _index_of(self, process: BaseProcess) -> int | None:
        for pid, index in self._reading.tolist():
            if pid == process.pid and index >= 0:
                return int(index)
        return None


class DeathSignals:
    """Handlers of SIGCHLD: `ignore` lets the deaths of child processes go unheard; whoever waits for one looks for it.

    Torch's loader sets a handler that raises wherever the main process stands: in the middle of a step, and between
    taking a lock of its queues and giving it back, which then hangs whoever closes the queue.
    """

    def __init__(self) -> None:
        self._before = None if _CHILD_ENDED is None else signal.getsignal(_CHILD_ENDED)

    def ignore(self) -> None:
        if _CHILD_ENDED is not None and _is_main_thread():
            signal.signal(_CHILD_ENDED, signal.SIG_DFL)

    def restore(self) -> None:
        """Put back what was there before."""
        if _CHILD_ENDED is not None and _is_main_thread() and self._before is not None:
            signal.signal(_CHILD_ENDED, self._before)


@dataclass
class Workers:
    """The worker processes of one loader."""

    processes: list[BaseProcess] = field(default_factory=list)

    @classmethod
    def started_by(cls, start: Callable[[], Any]) -> tuple[Any, Workers]:
        """What `start` gives, and the processes that it started."""
        before = set(multiprocessing.active_children())
        started = start()
        return started, cls([one for one in multiprocessing.active_children() if one not in before])

    @property
    def dead(self) -> list[BaseProcess]:
        """Those that ended otherwise than well."""
        return [one for one in self.processes if one.exitcode not in (None, 0)]

    def has_died(self) -> bool:
        """Whether one is dead, or dies just now: its connections break a moment before it counts as dead."""
        if not self.dead:
            wait([one.sentinel for one in self.processes], timeout=1.0)
        return bool(self.dead)

    def kill(self) -> None:
        """End them all now: they only read."""
        for one in self.processes:
            one.kill()
        for one in self.processes:
            one.join()


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
