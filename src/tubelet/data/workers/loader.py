"""Batches of steps from worker processes, put on the device one step ahead."""

from __future__ import annotations

import copy
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
from torch.utils.data import DataLoader

from tubelet.data.dataset import HostBatch, collate
from tubelet.data.streams import StreamSampler, StreamSet, TrainingSet
from tubelet.data.workers.guard import DeathSignals, GuardedDataset
from tubelet.data.workers.start_handshake import StartHandshake
from tubelet.types import Batch

__all__ = ["DeviceBatch", "Loader", "TrainingSet", "ignore_stop_signals", "worker_deaths"]

_PREFETCHED_STEPS: Final = 2
_LOST_WITH_A_WORKER: Final = (RuntimeError, OSError, EOFError)
"""What fetching raises where a worker died: torch says so, or its shared memory cannot be opened any more."""
_DEATHS_IN_A_ROW: Final = 3
"""So many deaths of workers before one step is ready, with no file to blame, end the run."""


@dataclass(frozen=True)
class DeviceBatch:
    """What a step gets: `host` as it was loaded, `batch` the same clips on the device, None where no file was good."""

    host: HostBatch
    batch: Batch | None


class Loader:
    """The steps of `sampler`, one `take` each, with clips of all `streams`.

    `waited_seconds` is the time spent waiting for data so far.
    With `workers` = 0 the files are read between the steps, in this process. A worker that dies is replaced, and what
    it had not delivered is read again; a file that crashed it, or kept it far longer than `seconds_per_file`, is
    skipped from then on. ValueError where workers go on dying with no file to blame.
    """

    def __init__(
        self,
        streams: Sequence[StreamSet],
        sampler: StreamSampler,
        *,
        workers: int,
        device: torch.device,
        seconds_per_file: float | None = None,
    ) -> None:
        self.waited_seconds = 0.0
        self._sampler, self._workers, self._device = sampler, workers, device
        self._left = len(sampler)
        self._begun = StartHandshake(workers)
        datasets = {one.name: one.dataset for one in streams}
        self._guarded = GuardedDataset(datasets, workers=workers, seconds=seconds_per_file)
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._ahead: DeviceBatch | None = None
        self._signals = DeathSignals()
        self._deaths = 0
        self._start()

    def take(self) -> DeviceBatch:
        """The next step's data, ready for use on the device."""
        self.fetch_ahead()
        device_batch, self._ahead = self._ahead, None
        assert device_batch is not None, "more steps taken than the sampler has"
        if self._stream is not None and device_batch.batch is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_stream(self._stream)
            for tensor in device_batch.batch.tensors():
                tensor.record_stream(current)
        return device_batch

    def fetch_ahead(self) -> None:
        """Start on the next step's data, if that was not done yet: called while the device is busy with a step."""
        if self._ahead is not None or self._left == 0:
            return
        started = time.perf_counter()
        host = self._next()
        self.waited_seconds += time.perf_counter() - started
        self._left -= 1
        with torch.cuda.stream(self._stream):  # does nothing where the stream is None
            self._ahead = DeviceBatch(host, None if host.batch is None else host.batch.to(self._device))

    def close(self) -> None:
        """Stop the workers, the one that hangs too."""
        self._source = iter(())
        self._crew.kill()
        self._signals.restore()

    def _start(self) -> None:
        """Start the workers, on the first step that was not taken yet."""
        sampler = copy.copy(self._sampler)
        sampler.start = sampler.stop - self._left

        def start() -> Iterator[HostBatch]:
            return iter(
                DataLoader(
                    self._guarded,  # type: ignore[arg-type] # torch asks for its base class, keys and a length do
                    batch_sampler=sampler,
                    collate_fn=collate,
                    num_workers=self._workers,
                    prefetch_factor=_PREFETCHED_STEPS if self._workers else None,
                    pin_memory=self._stream is not None,
                    worker_init_fn=partial(start_worker, self._begun),
                    generator=torch.Generator(),  # the loader draws a seed from it, which nothing uses
                )
            )

        self._source, self._crew = self._begun.start(start)
        self._signals.ignore()  # torch may have set a handler by now

    def _next(self) -> HostBatch:
        """Torch's loader looks every five seconds whether one of its workers died, while it waits."""
        while True:
            if self._crew.dead:
                self._replace_crew()
            try:
                loaded: HostBatch = next(self._source)
            except _LOST_WITH_A_WORKER:
                if not self._crew.has_died():
                    raise
            else:
                self._deaths = 0
                return loaded

    def _replace_crew(self) -> None:
        dead = self._crew.dead
        blamed = [one for one in dead if self._guarded.blame(one)]
        self._deaths += not blamed
        if self._deaths >= _DEATHS_IN_A_ROW:
            file = self._guarded.read_by(dead[0])
            how = _in_words(dead[0].exitcode) + ("" if file is None else f", while reading {file}")
            raise ValueError(_death(f"{how}; {self._deaths} times"))
        self._crew.kill()
        self._source = iter(())  # lets go of torch's loader
        self._start()


@contextmanager
def worker_deaths() -> Iterator[None]:
    """Inside, the death of a worker process is a ValueError of one line."""
    try:
        yield
    except RuntimeError as error:
        message = str(error)
        if not message.startswith("DataLoader worker"):
            raise
        raise ValueError(_death(message.split(" is ")[-1].split(". ")[0].rstrip(". "))) from error


def _death(how: str) -> str:
    return (
        f"a process that reads videos died ({how}); often memory ran out: lower data.workers or run.batch_size; run "
        "again to go on from the last checkpoint"
    )


def _in_words(code: int | None) -> str:
    return f"killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code: {code}"


def start_worker(begun: StartHandshake, worker: int) -> None:
    """One thread each; Ctrl-C and SIGTERM reach the whole group, but only the main process decides when to stop."""
    ignore_stop_signals()
    torch.set_num_threads(1)
    begun.note(worker)


def ignore_stop_signals() -> None:
    """Let Ctrl-C and SIGTERM pass by."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
