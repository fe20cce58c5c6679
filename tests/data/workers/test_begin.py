"""A worker process that hangs before it begins is started anew; one that dies is left to whoever watches for deaths."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from tubelet.data.workers import start_handshake as begin
from tubelet.data.workers.start_handshake import StartHandshake


def starter(begun: StartHandshake, work: Callable[[int], None]) -> Callable[[], Iterator[int]]:
    """Starts two processes that note that they have begun once `work` has let them, as torch's loader does."""

    def start() -> Iterator[int]:
        for number in range(2):
            multiprocessing.get_context("fork").Process(target=run, args=(number,), daemon=True).start()
        return iter(())

    def run(number: int) -> None:
        work(number)
        begun.note(number)
        time.sleep(60)

    return start


def end(processes: list[BaseProcess]) -> None:
    for one in processes:
        one.kill()
        one.join()


def test_one_that_hangs_the_first_time_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(begin, "_NAPS", 60)
    begun, seen = StartHandshake(2), tmp_path / "seen"

    def hang_once(number: int) -> None:
        if number == 1 and not seen.exists():
            seen.write_text(str(os.getpid()))
            time.sleep(60)

    _, crew = begun.start(starter(begun, hang_once))
    alive = [one.pid for one in crew.processes if one.is_alive()]
    end(crew.processes)
    assert len(alive) == 2
    assert int(seen.read_text()) not in alive
    assert not Path(f"/proc/{seen.read_text()}").exists()


def test_those_that_never_begin_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(begin, "_NAPS", 10)
    begun = StartHandshake(2)
    with pytest.raises(ValueError, match=r"do not begin; lower data\.workers"):
        begun.start(starter(begun, lambda _: time.sleep(60)))
    assert not multiprocessing.active_children()


def test_one_that_dies_at_once_is_not_waited_for() -> None:
    begun, started = StartHandshake(2), time.monotonic()
    _, crew = begun.start(starter(begun, lambda number: os._exit(3) if number else None))
    dead = [one.exitcode for one in crew.dead]
    end(crew.processes)
    assert dead == [3]
    assert time.monotonic() - started < 10


def test_no_workers_have_begun_at_once() -> None:
    source, crew = StartHandshake(0).start(lambda: iter([7]))
    assert list(source) == [7]
    assert crew.processes == []
