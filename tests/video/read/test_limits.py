"""A file that wants too much is given up with the reason, and nothing outlives its time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from video_files import write_video

from tubelet.video.read.file import BadVideo, open_video
from tubelet.video.read.limits import Clock, Limits, last_resort


@pytest.mark.parametrize("name", ["a.mp4", "a.avi"])  # with an index, and without
@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(seconds=0.0), "not read within 0 seconds"),
        (Limits(pixels=64 * 48 - 1), "64x48"),
        (Limits(frames=11), "11"),
    ],
)
def test_each_limit_has_its_reason(tmp_path: Path, name: str, limits: Limits, reason: str) -> None:
    path = write_video(tmp_path / name, 12)
    with pytest.raises(BadVideo, match=reason) as caught, open_video(path, limits=limits) as video:
        video.frames([11])
    assert "\n" not in caught.value.reason
    with open_video(path, limits=Limits(seconds=60.0, pixels=64 * 48, frames=12)) as video:
        assert video.frames([11]).shape == (1, 48, 64, 3)


def test_the_decoder_refuses_a_size_that_the_header_does_not_tell(tmp_path: Path) -> None:
    """Where a stream tells its size late, FFmpeg's own bound stands before the allocation."""
    small, large = (write_video(tmp_path / f"{side}.h264", 4, size=(side, side)) for side in (32, 256))
    both = tmp_path / "both.h264"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    with open_video(both) as video:
        assert len(video) == 8
    with pytest.raises(BadVideo), open_video(both, limits=Limits(pixels=64 * 64)) as video:
        video.frames([7])


def test_pipes_and_folders_are_refused_before_they_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    for name, reason in (("pipe.mp4", "not a file"), ("folder.mp4", "a folder")):
        with pytest.raises(BadVideo, match=reason), open_video(tmp_path / name):
            pass


def test_the_clock_runs_from_its_making(tmp_path: Path) -> None:
    clock = Clock(tmp_path, Limits(seconds=0.05))
    clock.check()
    time.sleep(0.06)
    with pytest.raises(BadVideo, match=r"0\.05 seconds"):
        clock.check()
    Clock(tmp_path, Limits()).check()


def exit_code(work: Callable[[], None]) -> int | None:
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(20)
    return process.exitcode


def hang() -> None:
    with last_resort(seconds=0.1, memory_bytes=2**30):
        time.sleep(30)


def eat() -> None:
    with last_resort(seconds=None, memory_bytes=2**28):
        np.ones(2**20)
        try:
            np.ones(2**27)
        except MemoryError:
            return
    os._exit(7)


def live_on() -> None:
    with last_resort(seconds=0.2, memory_bytes=2**26):
        pass
    time.sleep(0.4)
    np.ones(2**24)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory has no bound without /proc")
def test_a_process_that_only_reads_ends_or_is_refused_memory() -> None:
    assert exit_code(hang) == -signal.SIGALRM
    assert exit_code(eat) == 0
    assert exit_code(live_on) == 0
