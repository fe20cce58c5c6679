"""Several ranks of a run, forked off the test, so that torch need not be loaded by each."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch._dynamo  # what follows is loaded once, here, and not by every rank: it takes seconds
import torch.distributed.checkpoint
import torch.distributed.fsdp

from tubelet.train.distributed.signals import Interrupted

_SECONDS = 90.0


@dataclass(frozen=True)
class Ended:
    """How a rank ended: its exit code, all that it printed, and after how many seconds."""

    code: int | None
    text: str
    seconds: float


def run_ranks(world: int, work: Callable[[int], None], folder: Path, *, last: int | None = None) -> list[Ended]:
    """`work(rank)` in `world` processes that know each other. A ValueError is code 2, a signal heeded 128 + signal.

    Once the rank `last` has ended, the others are killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    files = [folder / f"rank-{rank}-{time.monotonic_ns()}.txt" for rank in range(world)]
    begun = time.monotonic()
    ranks = [fork.Process(target=_be, args=(rank, world, port, files[rank], work)) for rank in range(world)]
    for one in ranks:
        one.start()
    ended = []
    if last is not None:
        ranks[last].join(timeout=_SECONDS)
    for rank, one in enumerate(ranks):
        one.join(timeout=max(0.1, _SECONDS - (time.monotonic() - begun)) if last is None else 0.1)
        after = time.monotonic() - begun
        if one.is_alive():
            one.kill()
            one.join()
        ended.append(Ended(one.exitcode, files[rank].read_text(), after))
    return ended


def _be(rank: int, world: int, port: int, file: Path, work: Callable[[int], None]) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()}, MASTER_ADDR="127.0.0.1")
    out = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    faulthandler.enable(file=out)  # a fault in compiled code says where, here and not in pytest's own stream
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115  not pytest's
    torch.set_num_threads(1)
    code = 1
    try:
        work(rank)
        code = 0
    except Interrupted as stop:
        print(stop)
        code = 128 + stop.signal
    except ValueError as error:
        print(f"{type(error).__name__}: {error}")
        code = 2
    except Exception:  # noqa: BLE001  the test sees it in the text
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
