"""The processes of a run: how they meet, agree, and stop together. The only place that talks to torch's runtime.

Every function works without torchrun too: there is one process then, and nothing is sent.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]  # it does, without saying so

from tubelet.names import writable
from tubelet.recipe import Run
from tubelet.train.distributed.device import pick_device
from tubelet.train.distributed.heartbeat import Heartbeat, has_agent
from tubelet.train.distributed.signals import Interrupted
from tubelet.types import Batch

_MEETING: Final = timedelta(minutes=10)
_CONNECTING: Final = timedelta(seconds=30)
"""To a store that torchrun has opened before this process began: where nobody answers, torchrun is dead."""
_STUCK: Final = timedelta(minutes=60)  # a last resort: who is dead is found by the heartbeat, long before
_LETTING_GO_SECONDS: Final = 0.2
"""Threads of torch give back tensors after the last message; one that does so while Python ends aborts the process."""
_TORN: Final = ("gloo", "nccl", "connection", "socket", "broken pipe", "timed out", "recvvalue failed")


class RankLost(ValueError):  # noqa: N818  named for what happened
    """Another process of the run vanished; what was saved is good, and a restart goes on from there."""


@dataclass(frozen=True)
class Place:
    """Which process this is: `rank` of `world`, number `local_rank` on its machine."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0


def place() -> Place:
    """What torchrun (or a scheduler) says in RANK, WORLD_SIZE and LOCAL_RANK; ValueError where it makes no sense."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return Place()
    try:
        rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        local_rank = int(os.environ["LOCAL_RANK"])
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']}, but RANK and LOCAL_RANK do not say which process this is "
            f"({error}); start with torchrun, or unset WORLD_SIZE"
        ) from error
    if not 0 <= rank < world:
        raise ValueError(f"RANK={rank} of WORLD_SIZE={world}: ranks count from 0")
    return Place(rank, world, local_rank)


def is_main() -> bool:
    """Whether this process writes and speaks for all."""
    return place().rank == 0


@contextmanager
def joined(run: Run, say: Callable[[str], None]) -> Iterator[None]:
    """Inside, all processes of the run work together; within another `joined`, or for one process, nothing happens.

    An error in one process ends all of them: the others raise a ValueError that gives its message, or `RankLost` where
    it died without a word. `say` gets a last line where this process is stuck with the device and must be killed.
    """
    here = place()
    if here.world == 1 or dist.is_initialized():
        yield
        return
    heartbeat, stopped = _meet(run, here, say), None
    try:
        try:
            yield
        except Interrupted as stop:
            stopped = stop
        _part(heartbeat)
    except (Exception, KeyboardInterrupt) as error:
        reason = _reason(error, heartbeat, here)
        heartbeat.stop()
        _end_surely()
        time.sleep(_LETTING_GO_SECONDS)
        if reason is None:
            raise
        raise reason from error
    if stopped is not None:
        raise stopped


def barrier() -> None:
    """Wait until all processes are here."""
    gather([0.0])


def gather(numbers: Sequence[float | int]) -> list[list[float]]:
    """The numbers of every rank, in their order; all give equally many."""
    if place().world == 1:
        return [list(map(float, numbers))]
    mine = torch.tensor(numbers, dtype=torch.float64)
    found = [torch.empty_like(mine) for _ in range(place().world)]
    dist.all_gather(found, mine, group=hosts())
    return [one.tolist() for one in found]


def gather_texts(text: str) -> list[str]:
    """The text of every rank, in their order."""
    data = torch.frombuffer(bytearray(writable(text).encode() + b"\0"), dtype=torch.uint8)
    longest = int(max(lengths[0] for lengths in gather([len(data)])))
    if place().world == 1:
        return [text]
    padded = torch.nn.functional.pad(data, (0, longest - len(data)))
    found = [torch.empty_like(padded) for _ in range(place().world)]
    dist.all_gather(found, padded, group=hosts())
    return [bytes(one.tolist()).split(b"\0", 1)[0].decode() for one in found]


def on_main(work: Callable[[], str | None]) -> str:
    """What `work` gives in rank 0, the only one that does it; where it fails there, all ranks stop."""
    if place().world == 1:
        return work() or ""
    failed, result = "", ""
    try:
        if is_main():
            result = work() or ""
    except Exception as error:
        failed = " ".join(str(error).split()) or type(error).__name__
        raise
    finally:
        answer = gather_texts(f"{'failed' if failed else 'done'}\n{failed or result}")[0]
    state, text = answer.split("\n", 1)
    if state == "failed":
        raise ValueError(f"stopped with rank 0: {text}")
    return text


def sum_over_ranks(values: Tensor) -> Tensor:
    """Sum of the tensor over all ranks, the same bits in each; in place."""
    if place().world > 1:
        dist.all_reduce(values)
    return values


@torch.no_grad()
def agree_on(values: Sequence[Tensor]) -> None:
    """Make tensors equal in all ranks, in place: the mean of floating-point ones, the numbers of rank 0 of others."""
    world = place().world
    for value in values if world > 1 else ():
        if value.is_floating_point():
            dist.all_reduce(value)
            value.div_(world)
        else:
            dist.broadcast(value, src=0)


def share_batch(batch: Batch | None, *, source: int) -> Batch:
    """The batch of the rank `source`, on the host."""
    shared: list[Batch | None] = [batch]
    if place().world > 1:
        dist.broadcast_object_list(shared, src=source, group=hosts())
    assert shared[0] is not None
    return shared[0]


_host_group: dist.ProcessGroup | None = None


def hosts() -> dist.ProcessGroup | None:
    """Who carries numbers between hosts, so that no device is waited for; None is the group of all, which is gloo's."""
    return _host_group


def _meet(run: Run, here: Place, say: Callable[[str], None]) -> Heartbeat:
    """Find the other processes; the heartbeat that watches over them has begun."""
    global _host_group
    on_gpu = pick_device(run).type == "cuda"
    if on_gpu and here.local_rank >= torch.cuda.device_count():
        raise ValueError(
            f"LOCAL_RANK={here.local_rank}, but this machine has {torch.cuda.device_count()} GPUs; "
            "start at most one process for each (--nproc-per-node)"
        )
    if on_gpu:
        torch.cuda.set_device(here.local_rank)
    try:
        store = _store()
        dist.init_process_group(
            "nccl" if on_gpu else "gloo", store=store, rank=here.rank, world_size=here.world, timeout=_STUCK
        )
        _host_group = dist.new_group(backend="gloo", timeout=_STUCK) if on_gpu else None
        beats = _store()  # a connection of its own: a store does one thing after the other
        heartbeat = Heartbeat(beats, rank=here.rank, world=here.world, patience=run.lost_after_seconds, say=say)
        barrier()
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise ValueError(
            f"the {here.world} processes did not meet at {where} ({_sign(error)}); "
            "is each of them started, and can they reach each other?"
        ) from error
    heartbeat.start()
    return heartbeat


def _store() -> Store:
    """What all processes of this start can write to and read; an earlier start by the same torchrun left its own."""
    from torch.distributed.rendezvous import rendezvous

    store, _, _ = next(rendezvous("env://", timeout=_CONNECTING if has_agent() else _MEETING))
    store.set_timeout(_MEETING)
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"tubelet-{start}", store)


def _part(heartbeat: Heartbeat) -> None:
    """Leave together, so that nobody is taken for dead."""
    global _host_group
    barrier()
    heartbeat.stop()
    barrier()
    time.sleep(_LETTING_GO_SECONDS)
    dist.destroy_process_group()
    _host_group = None


def _end_surely() -> None:
    """NCCL may wait for a dead process for ever, also while Python ends: the system ends this one in a minute."""
    if _host_group is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(60)


def _reason(error: BaseException, heartbeat: Heartbeat, here: Place) -> ValueError | None:
    """What tore this process from the others; None where the error is its own, which the others are told now."""
    torn = isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _TORN)
    if not torn:
        heartbeat.fail(f"rank {here.rank}: {_short(error)}")
        return None
    told = heartbeat.told()
    if told is not None:
        return ValueError(f"stopped with {told}")
    silent = heartbeat.silent()
    gone = "rank " + ", ".join(map(str, silent)) if silent else "another process"
    heartbeat.fail(f"rank {here.rank}: {gone} is gone")
    return RankLost(
        f"{gone} of the {here.world} processes of this run is gone ({_sign(error)}); "
        "what was saved is good: start all of them again to go on"
    )


def _sign(error: BaseException) -> str:
    """What torch says of a torn connection, without its source file and its guesses."""
    return _short(error).rsplit(".cc:", 1)[-1].partition("] ")[2].partition(". ")[0] or _short(error)


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
