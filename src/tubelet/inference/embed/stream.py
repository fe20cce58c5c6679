"""Many videos decoded by threads, handed on in order: FFmpeg and torch let other threads run while they work.

Not by torch's loader: a video gives as many windows as it has, and only who reads it knows how many.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Final

import torch

from tubelet.data.dataset import Skipped
from tubelet.inference.embed.windows import Window
from tubelet.video.lists.manifest import VideoRef
from tubelet.video.read.file import BadVideo

WINDOWS_AHEAD: Final = 4
"""Windows of one video that wait to be taken."""

VIDEOS_AHEAD: Final = 2
"""Videos per thread that are decoded before the one whose turn it is has ended."""

LOOK_SECONDS: Final = 0.1
"""How often who waits looks whether it should."""

GOODBYE_SECONDS: Final = 5.0
"""How long a closed stream waits for its threads; one that hangs in a file is left behind."""

Read = Callable[[Path], Iterator[Window]]


def nothing() -> None:
    """Wait on."""


def stream(
    videos: Sequence[VideoRef], read: Read, *, threads: int, look: Callable[[], None] = nothing
) -> Generator[tuple[int, Window | Skipped], None, None]:
    """(place in `videos`, window) in the order of videos and windows, whatever the number of threads.

    A video that cannot be read gives one `Skipped`, which is the last of its items: windows that came before it must
    be dropped. Memory holds a few windows of a few videos. Close the generator to stop its threads early.
    Another error of `read` is raised here. `look` is called while nothing comes, and may raise.
    """
    crew = _Crew(videos, read, threads=min(threads, len(videos)))
    try:
        for place in range(len(videos)):
            for item in crew.items(place, look):
                yield place, item
    finally:
        crew.stop()


class _End:
    """The last item of a video."""


class _Crew:
    """Threads that take the next video each, as long as they are not too far ahead of who takes the windows."""

    def __init__(self, videos: Sequence[VideoRef], read: Read, *, threads: int) -> None:
        self._videos, self._read = videos, read
        self._lock = threading.Lock()
        self._next = 0
        self._room = threading.Semaphore(VIDEOS_AHEAD * threads)
        self._is_over = threading.Event()
        self._shelves: dict[int, queue.Queue[Window | Skipped | Exception | _End]] = {}
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def items(self, place: int, look: Callable[[], None]) -> Iterator[Window | Skipped]:
        """What a video gives; raises what went wrong in its thread."""
        while not isinstance(item := self._take(place, look), _End):
            if isinstance(item, Exception):
                raise item
            yield item
        with self._lock:
            del self._shelves[place]
        self._room.release()

    def _take(self, place: int, look: Callable[[], None]) -> Window | Skipped | Exception | _End:
        shelf = self._shelf(place)
        while True:
            try:
                return shelf.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                look()

    def stop(self) -> None:
        self._is_over.set()
        for _ in self._threads:
            self._room.release()
        end = time.monotonic() + GOODBYE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _work(self) -> None:
        torch.set_num_threads(1)  # of this thread: many that resize would fight for the cores
        while True:
            self._room.acquire()
            with self._lock:
                place, self._next = self._next, self._next + 1
            if self._is_over.is_set() or place >= len(self._videos):
                return
            self._decode(place)

    def _decode(self, place: int) -> None:
        video = self._videos[place]
        try:
            for window in self._read(video.path):
                if not self._put(place, window):
                    return
            self._put(place, _End())
        except BadVideo as bad:
            self._put(place, Skipped(place, video.name, video.path, bad.reason))
            self._put(place, _End())
        except Exception as error:  # noqa: BLE001  raised again where the windows are taken
            self._put(place, error)

    def _put(self, place: int, item: Window | Skipped | Exception | _End) -> bool:
        """Wait for room on the video's shelf; False where nobody will take it any more."""
        shelf = self._shelf(place)
        while not self._is_over.is_set():
            try:
                shelf.put(item, timeout=LOOK_SECONDS)
            except queue.Full:
                continue
            return True
        return False

    def _shelf(self, place: int) -> queue.Queue[Window | Skipped | Exception | _End]:
        with self._lock:
            return self._shelves.setdefault(place, queue.Queue(WINDOWS_AHEAD))
