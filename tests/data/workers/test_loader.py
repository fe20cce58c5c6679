"""Steps from workers."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from toy_run import ToySet

from tubelet.data.streams import StreamSampler, StreamSet
from tubelet.data.workers.loader import DeviceBatch, Loader, worker_deaths


def feed(workers: int, *, start: int = 0, bad: tuple[int, ...] = ()) -> Loader:
    streams = (StreamSet("video", ToySet(count=10, bad=bad), 3),)
    sampler = StreamSampler(streams, seed=0, start=start, stop=5)
    return Loader(streams, sampler, workers=workers, device=torch.device("cpu"))


def same(one: DeviceBatch, other: DeviceBatch) -> bool:
    assert one.batch is not None
    assert other.batch is not None
    left, right = one.batch.clips["video"], other.batch.clips["video"]
    return left.video.equal(right.video) and left.index.equal(right.index)


def test_workers_and_starting_step_do_not_change_what_a_step_gets() -> None:
    plain, worked, later = feed(0), feed(2), feed(1, start=2)
    for step in range(5):
        here = plain.take()
        assert same(here, worked.take())
        if step >= 2:
            assert same(here, later.take())
    for one in (plain, worked, later):
        one.close()


def test_fetching_ahead_changes_nothing_and_stops_at_the_last_step() -> None:
    plain, ahead = feed(0), feed(0)
    for _ in range(5):
        taken = ahead.take()
        ahead.fetch_ahead()
        assert same(plain.take(), taken)
    assert ahead.waited_seconds > 0


def test_bad_files_come_beside_the_batch() -> None:
    source = feed(0, bad=tuple(range(10)))
    fed = source.take()
    assert fed.batch is None
    assert len(fed.host.skipped) == 3


@dataclass(frozen=True)
class Slow(ToySet):
    """Reading a video takes a while."""

    def __getitem__(self, key: tuple[int, int]) -> Any:
        time.sleep(0.05)
        return super().__getitem__(key)


@pytest.mark.parametrize(("workers", "waits_less"), [(1, True), (0, False)])
def test_little_is_waited_where_the_steps_take_longer_than_the_reading(workers: int, waits_less: bool) -> None:
    """A worker reads 3 videos in 0.15 s, a step takes 0.3 s."""
    streams = (StreamSet("video", Slow(count=10), 3),)
    source = Loader(
        streams, StreamSampler(streams, seed=0, start=0, stop=6), workers=workers, device=torch.device("cpu")
    )
    waits: list[float] = []
    for _ in range(6):
        before = source.waited_seconds
        source.take()
        waits.append(source.waited_seconds - before)
        time.sleep(0.3)
    source.close()
    assert (statistics.median(waits) < 0.05 * 0.3) == waits_less


def test_only_deaths_of_workers_are_translated() -> None:
    line = "DataLoader worker (pid 12) is killed by signal: Killed. "
    with pytest.raises(ValueError, match="killed by signal: Killed"), worker_deaths():
        raise RuntimeError(line)
    with pytest.raises(RuntimeError, match="other"), worker_deaths():
        raise RuntimeError("other")
