"""Batches of steps from worker processes, put on the device one step ahead."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from tubelet.data.dataset import Loaded, collate
from tubelet.data.order import StepSampler
from tubelet.types import Batch
from tubelet.video.manifest import VideoRef

_PREFETCHED_STEPS: Final = 2


@runtime_checkable
class TrainingSet(Protocol):
    """A data set read by (epoch, index) keys, index below its length; `videos` are in the order of the indices."""

    @property
    def videos(self) -> Sequence[VideoRef]:
        """The video of each index."""

    def __len__(self) -> int:
        """How many videos."""

    def __getitem__(self, key: tuple[int, int]) -> Any:
        """What `tubelet.data.dataset.collate` takes: a sample, or why there is none."""


@dataclass(frozen=True)
class Fed:
    """What a step gets: `host` as it was loaded, `batch` the same clips on the device, None where no file was good."""

    host: Loaded
    batch: Batch | None


class Feed:
    """The steps of `sampler`, one `take` each. `waited_seconds` is the time spent waiting for data so far.

    With `workers` = 0 the files are read between the steps, in this process.
    """

    def __init__(self, dataset: TrainingSet, sampler: StepSampler, *, workers: int, device: torch.device) -> None:
        self.waited_seconds = 0.0
        self._left = len(sampler)
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._ahead: Fed | None = None
        self._source: Iterator[Loaded] = iter(
            DataLoader(
                dataset,  # type: ignore[arg-type] # torch asks for its base class, TrainingSet is enough
                batch_sampler=sampler,
                collate_fn=collate,
                num_workers=workers,
                prefetch_factor=_PREFETCHED_STEPS if workers else None,
                pin_memory=self._stream is not None,
                worker_init_fn=_start_worker,
                generator=torch.Generator(),  # the loader draws a seed from it, which nothing uses
            )
        )

    def take(self) -> Fed:
        """The next step's data, ready for use on the device."""
        self.fetch_ahead()
        fed, self._ahead = self._ahead, None
        assert fed is not None, "more steps taken than the sampler has"
        if self._stream is not None and fed.batch is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_stream(self._stream)
            for tensor in _tensors(fed.batch):
                tensor.record_stream(current)
        return fed

    def fetch_ahead(self) -> None:
        """Start on the next step's data, if that was not done yet: called while the device is busy with a step."""
        if self._ahead is not None or self._left == 0:
            return
        started = time.perf_counter()
        host = next(self._source)
        self.waited_seconds += time.perf_counter() - started
        self._left -= 1
        with torch.cuda.stream(self._stream):  # does nothing where the stream is None
            self._ahead = Fed(host, None if host.batch is None else host.batch.to(self._device))

    def close(self) -> None:
        """Stop the workers."""
        self._source = iter(())


@contextmanager
def worker_deaths() -> Iterator[None]:
    """Inside, the death of a worker process is a ValueError of one line; torch raises it wherever the run stands."""
    try:
        yield
    except RuntimeError as error:
        message = str(error)
        if not message.startswith("DataLoader worker"):
            raise
        raise ValueError(
            f"a process that reads videos died ({message.split(' is ')[-1].split('. ')[0].rstrip('. ')}); often memory "
            "ran out: lower data.workers or run.batch_size; run again to go on from the last checkpoint"
        ) from error


def _tensors(batch: Batch) -> Iterator[Tensor]:
    for clips in batch.clips.values():
        yield from (clips.video, clips.index)
    for split in batch.splits.values():
        yield from (split.seen, split.wanted, split.weight)
    if batch.labels is not None:
        yield batch.labels


def _start_worker(worker: int) -> None:  # noqa: ARG001  the loader passes the number
    """One thread each; Ctrl-C and SIGTERM reach the whole group, but only the main process decides when to stop."""
    ignore_stop_signals()
    torch.set_num_threads(1)


def ignore_stop_signals() -> None:
    """Let Ctrl-C and SIGTERM pass by."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
