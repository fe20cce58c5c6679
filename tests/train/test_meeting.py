"""Processes whose launcher died before they met do not wait for it."""

from __future__ import annotations

import socket
import time
from datetime import timedelta

import pytest

from tubelet.recipe import Run
from tubelet.train import distributed


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
