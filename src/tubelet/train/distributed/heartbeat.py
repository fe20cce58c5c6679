"""Signs of life: each process counts where the others can see it, so that a dead one is noticed in bounded time.

Time is counted in own beats, never read from a clock: a machine that was suspended wakes up with nobody dead.

What torch has for it (2.13) does not do:
- torchrun's agent sees a process that exits, not one that hangs. It then ends the others of its machine with SIGTERM
  and no reason, and notices agents of other machines by their own keep-alive, in minutes. A scheduler has none.
- `monitored_barrier` names the rank that is missing, but it is a collective that all ranks must enter, of gloo only: in
  every step it would make ranks wait for each other, and it finds nothing while they are within the step.
- Store barriers (`store_util.barrier`) must be entered by all as well, and wait for a fixed time.
- NCCL's watchdog (TORCH_NCCL_ASYNC_ERROR_HANDLING) aborts after the timeout of the group, which must be longer than the
  longest save or evaluation, with SIGABRT and no word of who is missing; gloo has no watchdog.
- `torch.distributed.elastic.timer` ends a process that overruns its own deadline, and needs an agent that polls it.
So a lost rank is found here, within `lost_after_seconds`, with or without torchrun, on gloo and NCCL alike.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Final

from torch.distributed import Store  # type: ignore[attr-defined]  # it does, without saying so

LOST: Final = 75
"""Exit code after another process vanished: the sysexits code for a failure that may be gone next time."""
_BEAT_SECONDS: Final = 1.0
_GRACE_BEATS: Final = 15
_NOBODY: Final = "-"
_FAILED: Final = "failed"


class Heartbeat:
    """Beats in a thread. Rank 0 watches all ranks, all watch rank 0; after `patience` seconds of silence one is dead.

    Mostly a torn connection tells the main thread sooner. Where that hangs in the device instead, this thread says one
    line and ends the process with the code `LOST`, 15 seconds after it knows. Where torchrun itself is gone the ranks
    are told to stop, and save.
    """

    def __init__(self, store: Store, *, rank: int, world: int, patience: float, say: Callable[[str], None]) -> None:
        self._store, self._rank, self._world, self._say = store, rank, world, say
        self._patience = max(2, math.ceil(patience / _BEAT_SECONDS))
        self._watched = [other for other in (range(world) if rank == 0 else range(1)) if other != rank]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._told: str | None = None
        store.set(_key(rank), "0")
        if rank == 0:
            store.set(_FAILED, _NOBODY)

    def start(self) -> None:
        """Begin to beat and to watch; all ranks must have been made."""
        self._thread.start()

    def stop(self) -> None:
        """No more beats: the others must not watch any more, or know why."""
        self._over.set()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=5 * _BEAT_SECONDS)

    def fail(self, reason: str) -> None:
        """Tell the others why this process ends, unless another one told first."""
        try:
            self._store.compare_set(_FAILED, _NOBODY, reason)
        except RuntimeError:  # the store is gone: its host is dead, and they know
            return
        if self._rank == 0 and not has_agent():
            self._over.wait(3 * _BEAT_SECONDS)  # the store dies with this process: let them read it

    def told(self) -> str | None:
        """Why the first process that failed did so, None where none said anything."""
        if self._told is None:
            self._told = self._read_failed()
        return self._told

    def silent(self) -> list[int]:
        """Ranks that do not beat any more; takes a few beats to find out."""
        try:
            before = self._counts(range(self._world))
            self._over.wait(2.5 * _BEAT_SECONDS)
            after = self._counts(range(self._world))
        except RuntimeError:
            return [] if has_agent() else [0]  # who had the store
        return [rank for rank in range(self._world) if before[rank] == after[rank] and rank != self._rank]

    def _beat(self) -> None:
        beats, still, seen = 0, dict.fromkeys(self._watched, 0), dict.fromkeys(self._watched, b"")
        while not self._over.wait(_BEAT_SECONDS):
            beats += 1
            try:
                self._store.set(_key(self._rank), str(beats))
                counts = self._counts(self._watched)
                told = self._read_failed()
            except RuntimeError:  # torchrun is dead, or rank 0: nobody would miss this process
                os.kill(os.getpid(), signal.SIGTERM)  # the ranks may be able to save, as after any SIGTERM
                self._end("the process that brought this run together is gone", beats=self._patience)
                return
            for rank in self._watched:
                still[rank] = still[rank] + 1 if counts[rank] == seen[rank] else 0
            seen = counts
            dead = [rank for rank, beats_still in still.items() if beats_still >= self._patience]
            if told is None and dead:
                told = f"rank {dead[0]}: no sign of life for {self._patience * _BEAT_SECONDS:.0f} s"
                self.fail(told)
            if told is not None:
                self._told = told
                self._end(f"stopped with {told}", beats=_GRACE_BEATS)
                return

    def _end(self, line: str, *, beats: int) -> None:
        """Give the main thread time to end by itself; then end the process."""
        if self._over.wait(beats * _BEAT_SECONDS):
            return
        self._say(f"rank {self._rank}: {line}; start all processes again to go on from the last checkpoint")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(LOST)

    def _counts(self, ranks: range | list[int]) -> dict[int, bytes]:
        return dict(zip(ranks, self._store.multi_get([_key(rank) for rank in ranks]), strict=True))

    def _read_failed(self) -> str | None:
        try:
            text = self._store.get(_FAILED).decode()
        except RuntimeError:
            return None
        return None if text == _NOBODY else text


def has_agent() -> bool:
    """Whether torchrun keeps the store, and not rank 0."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _key(rank: int) -> str:
    return f"beat/{rank}"
