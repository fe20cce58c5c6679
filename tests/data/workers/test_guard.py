"""A file that crashes or hangs a worker process costs that file; a worker that is killed costs a moment."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader
from toy_run import ToySet

from tubelet.data.streams import StreamSampler, StreamSet
from tubelet.data.workers.loader import DeviceBatch, Loader


@dataclass(frozen=True)
class Moody:
    """A ToySet in which reading some videos does something to the process, once or each time."""

    acts: dict[int, Any]
    once: Path | None = None
    calm: ToySet = field(default_factory=lambda: ToySet(count=10))

    @property
    def videos(self) -> Any:
        return self.calm.videos

    def __len__(self) -> int:
        return len(self.calm)

    def __getitem__(self, key: tuple[int, int]) -> Any:
        act = self.acts.get(key[1])
        if act is not None and (self.once is None or not self.once.exists()):
            if self.once is not None:
                self.once.touch()
            act()
        return self.calm[key]


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    time.sleep(60)


def feed(dataset: Any, *, workers: int = 2, seconds: float | None = None) -> Loader:
    streams = (StreamSet("video", dataset, 3),)
    sampler = StreamSampler(streams, seed=0, start=1, stop=6)
    return Loader(streams, sampler, workers=workers, device=torch.device("cpu"), seconds_per_file=seconds)


def all_steps(source: Loader) -> list[DeviceBatch]:
    try:
        return [source.take() for _ in range(5)]
    finally:
        source.close()


def same(one: DeviceBatch, other: DeviceBatch) -> bool:
    assert one.batch is not None
    assert other.batch is not None
    left, right = one.batch.clips["video"], other.batch.clips["video"]
    return left.video.equal(right.video) and left.index.equal(right.index)


@pytest.mark.parametrize(
    ("act", "reason"), [(crash, "kills the process (SIGSEGV)"), (hang, "not read within 0.2 seconds")]
)
def test_a_file_that_crashes_or_hangs_its_reader_is_skipped_with_the_reason(act: Any, reason: str) -> None:
    started = time.monotonic()
    fed = all_steps(feed(Moody({4: act}), seconds=0.2))
    assert time.monotonic() - started < 20
    reference = all_steps(feed(ToySet(count=10, bad=(4,)), workers=0))
    assert all(same(one, other) for one, other in zip(fed, reference, strict=True))
    skipped = [item for one in fed for item in one.host.skipped]
    assert len(skipped) == sum(len(one.host.skipped) for one in reference) > 0
    assert {item.index for item in skipped} == {4}
    assert {str(item.path) for item in skipped} == {"videos/4.mp4"}
    assert all(reason in item.reason for item in skipped)


def test_a_worker_that_is_killed_is_replaced_and_nothing_is_lost(tmp_path: Path) -> None:
    """SIGKILL comes from elsewhere: no file is to blame."""
    for workers in (1, 2):
        fed = all_steps(feed(Moody({4: killed}, once=tmp_path / f"done{workers}"), workers=workers))
        reference = all_steps(feed(ToySet(count=10), workers=0))
        assert (tmp_path / f"done{workers}").exists()
        assert all(same(one, other) for one, other in zip(fed, reference, strict=True))
        assert not any(one.host.skipped for one in fed)


def test_a_worker_killed_between_two_steps_is_replaced() -> None:
    plain: Any = ToySet(count=10)
    list(DataLoader(plain, sampler=[(0, 0)], batch_size=None, num_workers=1))  # torch sets its handler, if not before
    before = signal.getsignal(signal.SIGCHLD)
    source = feed(ToySet(count=10))
    reference = all_steps(feed(ToySet(count=10), workers=0))
    fed = [source.take()]
    for process in source._crew.processes:
        os.kill(process.pid or 0, signal.SIGKILL)
    time.sleep(0.1)  # nothing is raised here, in the middle of a step
    fed += [source.take() for _ in range(4)]
    source.close()
    assert signal.getsignal(signal.SIGCHLD) is before
    assert all(same(one, other) for one, other in zip(fed, reference, strict=True))


def test_workers_that_go_on_dying_end_the_run_in_one_line_with_the_file() -> None:
    with pytest.raises(ValueError, match=r"SIGKILL, while reading videos/4\.mp4; 3 times") as caught:
        all_steps(feed(Moody({4: killed})))
    assert "data.workers" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_workers_nothing_is_guarded() -> None:
    with pytest.raises(KeyError):
        all_steps(feed(Moody({4: {}.popitem}), workers=0, seconds=0.2))
