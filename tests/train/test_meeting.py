"""Processes do not wait for a launcher, or for another one of them, that died before they met."""

from __future__ import annotations

import os
import signal
import socket
import time
from datetime import timedelta
from pathlib import Path

import pytest
from ranks import run_ranks

from tubelet.recipe import Run
from tubelet.train.distributed import process_group as distributed


def test_ranks_of_a_dead_torchrun_give_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    named = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, value in {**named, "TORCHELASTIC_USE_AGENT_STORE": "True"}.items():
        monkeypatch.setenv(name, value)
    assert distributed._CONNECTING <= timedelta(seconds=60) < distributed._MEETING
    monkeypatch.setattr(distributed, "_CONNECTING", timedelta(seconds=2))
    begun = time.monotonic()
    with (
        pytest.raises(ValueError, match=r"the 2 processes did not meet at 127\.0\.0\.1"),
        distributed.joined(Run(device="cpu"), print),
    ):
        pytest.fail("nobody else is there")
    assert time.monotonic() - begun < 20


def test_a_rank_that_dies_while_they_meet_is_one_line_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(rank: int) -> None:
        if rank == 1:
            monkeypatch.setattr(distributed, "Heartbeat", lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
        with distributed.joined(Run(device="cpu"), print):
            pytest.fail("one is missing")

    for rank, one in enumerate(run_ranks(3, begin, tmp_path)):
        assert one.code == (-signal.SIGKILL if rank == 1 else 2), one.text
        if rank != 1:
            [line] = one.text.splitlines()
            assert line.startswith("ValueError: the 3 processes did not meet at 127.0.0.1:")
