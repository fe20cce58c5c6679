"""Reading in worker processes that a file may crash or hang: that costs the file and a moment, not the run."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

import torch
from torch.utils.data import get_worker_info

from tubelet.data.dataset import Sample, Skipped
from tubelet.data.streams import Key, TrainingSet
from tubelet.video.lists.manifest import VideoRef
from tubelet.video.read.limits import MEMORY_BYTES, last_resort

CRASHES: Final = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL})
"""Signals that a process brings upon itself: the file it was reading is to blame. SIGKILL comes from elsewhere."""

_Place = tuple[str, int]
"""A stream, and the index of a video in it."""


class GuardedDataset:
    """The data sets of all streams, whose videos are read within limits where a worker process reads them.

    Keys are `tubelet.data.streams.Key`, and what they give bears the name of its stream. A worker ends itself when a
    file takes more than `seconds` by far: a file that is merely slow is given up by its reader before that. `blame`
    notes the file that a dead process was reading; workers that are started afterwards leave it out, as `Skipped` with
    the reason.
    """

    def __init__(self, datasets: Mapping[str, TrainingSet], *, workers: int, seconds: float | None) -> None:
        self._datasets, self._names, self._seconds = dict(datasets), tuple(datasets), seconds
        self._given_up: dict[_Place, str] = {}
        self._reading = torch.full((workers, 3), -1, dtype=torch.int64).share_memory_()  # process, stream, index

    def __len__(self) -> int:
        return sum(len(dataset) for dataset in self._datasets.values())

    def __getitem__(self, key: Key) -> Sample | Skipped:
        place = (key.stream, key.video)
        if place in self._given_up:
            video = self._video(place)
            return Skipped(key.video, video.name, video.where, self._given_up[place], key.stream)
        worker = get_worker_info()
        if worker is None:
            return self._read(key)
        row = self._reading[worker.id]
        row[0], row[1] = multiprocessing.current_process().pid or -1, self._names.index(key.stream)
        row[2] = key.video
        with last_resort(seconds=self._hard_seconds, memory_bytes=MEMORY_BYTES):
            item = self._read(key)
        row[2] = -1
        return item

    def read_by(self, process: BaseProcess) -> Path | None:
        """The file that a worker was reading when it died; None where it was not reading."""
        place = self._place_of(process)
        return None if place is None else self._video(place).path

    def blame(self, process: BaseProcess) -> bool:
        """Give up the file that a dead worker was reading, if the file is what killed it; whether it was."""
        place, code = self._place_of(process), process.exitcode
        if place is None or code is None or code >= 0:
            return False
        if -code == signal.SIGALRM:
            self._given_up[place] = f"not read within {self._seconds:g} seconds: the decoder hangs"
        elif -code in CRASHES:
            self._given_up[place] = f"reading it kills the process ({signal.Signals(-code).name})"
        return place in self._given_up

    def _read(self, key: Key) -> Sample | Skipped:
        item: Sample | Skipped = self._datasets[key.stream][key.epoch, key.video]
        return replace(item, stream=key.stream)

    def _video(self, place: _Place) -> VideoRef:
        stream, index = place
        return self._datasets[stream].videos[index]

    @property
    def _hard_seconds(self) -> float | None:
        return None if self._seconds is None else 1.25 * self._seconds + 1

    def _place_of(self, process: BaseProcess) -> _Place | None:
        for pid, stream, index in self._reading.tolist():
            if pid == process.pid and index >= 0:
                return self._names[stream], index
        return None


class DeathSignals:
    """Handlers of SIGCHLD: `ignore` lets the deaths of child processes go unheard; whoever waits for one looks for it.

    Torch's loader sets a handler that raises wherever the main process stands: in the middle of a step, and between
    taking a lock of its queues and giving it back, which then hangs whoever closes the queue.
    """

    def __init__(self) -> None:
        self._before = signal.getsignal(signal.SIGCHLD)

    def ignore(self) -> None:
        if _is_main_thread():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def restore(self) -> None:
        """Put back what was there before."""
        if _is_main_thread() and self._before is not None:
            signal.signal(signal.SIGCHLD, self._before)


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
