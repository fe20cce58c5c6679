"""Threads that decode: the order, what waits, and how they end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tubelet.data.dataset import Skipped
from tubelet.inference.embed.stream import VIDEOS_AHEAD, WINDOWS_AHEAD, stream
from tubelet.inference.embed.windows import Window
from tubelet.video.lists.manifest import VideoRef
from tubelet.video.read.file import BadVideo

VIDEOS = [VideoRef(Path(f"{number}.mp4"), None, f"{number}.mp4") for number in range(9)]


def window(clip: int) -> Window:
    return Window(clip, float(clip), clip + 1.0, torch.zeros(3, 1, 2, 2, dtype=torch.uint8))


def number_of(path: Path) -> int:
    return int(path.stem)


def uneven(path: Path) -> Iterator[Window]:
    """Video n has n % 4 + 1 windows; early videos take longer; videos 3 and 4 are bad, at once and after a window."""
    number = number_of(path)
    time.sleep(0.002 * (9 - number))
    if number == 3:
        raise BadVideo(path, "bad from the start")
    for clip in range(number % 4 + 1):
        if number == 4 and clip == 0:
            yield window(0)
            raise BadVideo(path, "bad later")
        yield window(clip)


@pytest.mark.parametrize("threads", [1, 2, 5, 20])
def test_items_come_in_order_whatever_the_number_of_threads(threads: int) -> None:
    found = [
        (place, item.reason if isinstance(item, Skipped) else item.clip)
        for place, item in stream(VIDEOS, uneven, threads=threads)
    ]
    assert found == [
        (0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (3, "bad from the start"), (4, 0), (4, "bad later"),
        (5, 0), (5, 1), (6, 0), (6, 1), (6, 2), (7, 0), (7, 1), (7, 2), (7, 3), (8, 0),
    ]  # fmt: skip


def test_a_skipped_video_says_which_it_is() -> None:
    (bad,) = [item for place, item in stream(VIDEOS[:4], uneven, threads=2) if isinstance(item, Skipped)]
    assert bad == Skipped(3, "3.mp4", Path("3.mp4"), "bad from the start")


@pytest.mark.parametrize("threads", [1, 3])
def test_what_waits_is_bounded(threads: int) -> None:
    made = []

    def endless(path: Path) -> Iterator[Window]:
        for clip in range(10_000):
            made.append(number_of(path))
            yield window(clip)

    items = stream(VIDEOS, endless, threads=threads)
    next(items)
    settle(made)
    assert len(made) <= threads * (WINDOWS_AHEAD + 2)

    made.clear()
    short = stream([VIDEOS[0]] * 1000, lambda path: iter([made.append(0) or window(0)]), threads=threads)  # type: ignore[func-returns-value]
    next(short)
    settle(made)
    assert len(made) <= VIDEOS_AHEAD * threads + 1
    items.close()
    short.close()


def settle(made: list[int]) -> None:
    """Until nothing has been made for a while."""
    before = -1
    while before != len(made):
        before = len(made)
        time.sleep(0.15)


@pytest.mark.parametrize("take", [0, 1, 5])
def test_a_stream_closed_early_stops_its_threads(take: int) -> None:
    before = threading.active_count()
    items = stream(VIDEOS, uneven, threads=4)
    for _ in range(take):
        next(items)
    assert threading.active_count() >= before + (take > 0)
    items.close()
    assert threading.active_count() == before


def test_threads_end_with_the_last_video() -> None:
    before = threading.active_count()
    assert len(list(stream(VIDEOS, uneven, threads=4))) == 19
    assert threading.active_count() == before
    assert list(stream([], uneven, threads=4)) == []


def test_another_error_is_raised_where_the_windows_are_taken() -> None:
    def broken(path: Path) -> Iterator[Window]:
        yield window(0)
        if number_of(path) == 1:
            raise ZeroDivisionError("a bug")

    before = threading.active_count()
    items = stream(VIDEOS, broken, threads=3)
    assert [next(items)[0], next(items)[0]] == [0, 1]
    with pytest.raises(ZeroDivisionError, match="a bug"):
        next(items)
    assert threading.active_count() == before
