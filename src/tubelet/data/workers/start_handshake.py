"""Worker processes that never begin are started anew.

They are forked, for a data set need not be copied then. A fork copies the locks of the moment: where another thread
holds one of Python's own (gloo's threads do, for an instant after a message), the new process waits for it for ever
(CPython 3.11, seen under `scripts/soak.py`). So each worker notes that it has begun. It then waits for a word to go on,
so that none is dead, and forgotten by Python, before it is known who they are.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import torch

from tubelet.data.workers.guard import Workers

_NAP_SECONDS: Final = 0.005
_NAPS: Final = 6000
"""Half a minute and more; counted, so that a machine that was suspended finds nobody late."""
_TRIES: Final = 5


class StartHandshake:
    """Which of the workers of one loader have begun."""

    def __init__(self, workers: int) -> None:
        self._flags = torch.zeros(workers, dtype=torch.int64).share_memory_()
        self._word = torch.zeros(1, dtype=torch.int64).share_memory_()

    def note(self, worker: int) -> None:
        """Called in the worker process; returns when the work may begin. Where its parent dies, so does the worker."""
        parent = os.getppid()
        self._flags[worker] = 1
        while not self._word.item():
            time.sleep(_NAP_SECONDS)
            if os.getppid() != parent:
                os._exit(1)

    def start(self, start: Callable[[], Iterator[Any]]) -> tuple[Iterator[Any], Workers]:
        """What `start` gives, and the processes it started; all of them have begun, or died.

        ValueError where some do not begin though they were started anew a few times.
        """
        for _ in range(_TRIES):
            self._flags.zero_()
            self._word.zero_()
            source, crew = Workers.started_by(start)
            if self._all_begin(crew):
                self._word.fill_(1)
                return source, crew
            crew.kill()
        raise ValueError("processes that read videos do not begin; lower data.workers, or set data.workers=0")

    def _all_begin(self, crew: Workers) -> bool:
        for _ in range(_NAPS):
            if crew.dead or bool(self._flags.all()):
                return True
            time.sleep(_NAP_SECONDS)
        return False
