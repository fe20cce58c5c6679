"""Helpers that embed shards: their failures, their ends, their share of the machine."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from toy_embed import SETTINGS, Notes

from tubelet.inference.embed import processes
from tubelet.inference.embed.embed import Stopped
from tubelet.inference.embed.processes import Helper, embed_in_processes, share_of_machine
from tubelet.inference.embed.work_units import WorkUnits
from tubelet.video.lists.manifest import Manifest, VideoRef

MANIFEST = Manifest((VideoRef(Path("a.mp4"), None, "a.mp4"),), None, Path("."))


def helper(code: str, pid_file: Path) -> Helper:
    note = f"import os, pathlib, sys, time; pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid()))\n"
    return Helper((sys.executable, "-c", note + code), {"TOY": "1"})


def is_alive(pid_file: Path) -> bool:
    try:
        os.kill(int(pid_file.read_text()), 0)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return True


def wait_for(path: Path) -> None:
    end = time.monotonic() + 30
    while not (path.is_file() and path.read_text()):
        assert time.monotonic() < end, path
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("sys.exit('a note\\ntubelet: x.mp4: too bad')", "process 0 of 2: x.mp4: too bad$"),
        ("os.kill(os.getpid(), 9)", "process 0 of 2: killed by signal 9; finished work is kept"),
        ("sys.exit(3)", "process 0 of 2: failed with exit code 3"),
        ("1 / 0", "process 0 of 2: ZeroDivisionError: division by zero"),
    ],
)
def test_a_helper_that_fails_makes_the_whole_fail_and_the_others_stop(tmp_path: Path, code: str, message: str) -> None:
    other = tmp_path / "other"
    failing = helper(f"while not pathlib.Path({str(other)!r}).exists(): time.sleep(0.01)\n{code}", tmp_path / "pid")
    started = time.monotonic()
    with pytest.raises(ValueError, match=message):
        embed_in_processes(
            [failing, helper("time.sleep(60)", other)], MANIFEST, WorkUnits(tmp_path / "e.parquet"), SETTINGS, Notes()
        )
    assert time.monotonic() - started < 30
    assert not is_alive(other)


def test_a_signal_stops_the_helpers_and_then_this_process(tmp_path: Path) -> None:
    pids = [tmp_path / "0", tmp_path / "1"]

    def send() -> None:
        for pid in pids:
            wait_for(pid)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=send)
    thread.start()
    notes = Notes()
    with pytest.raises(Stopped, match="stopped by SIGTERM; finished work is kept") as stop:
        embed_in_processes(
            [helper("time.sleep(60)", pid) for pid in pids],
            MANIFEST,
            WorkUnits(tmp_path / "e.parquet"),
            SETTINGS,
            notes,
        )
    thread.join()
    assert stop.value.signal == signal.SIGTERM
    assert not any(is_alive(pid) for pid in pids)
    assert notes.ended == 1


def test_a_helper_that_will_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "GOODBYE_SECONDS", 0.2)
    deaf = helper(
        "import signal; signal.signal(15, lambda *a: None); pathlib.Path(sys.argv[0])\n"
        f"pathlib.Path({str(tmp_path / 'deaf')!r}).write_text('yes')\nend = time.time() + 60\n"
        "while time.time() < end: time.sleep(0.1)",
        tmp_path / "pid",
    )
    wait = f"while not pathlib.Path({str(tmp_path / 'deaf')!r}).exists(): time.sleep(0.01)"
    failing = helper(f"{wait}\n1 / 0", tmp_path / "failing")
    with pytest.raises(ValueError, match="process 1 of 2: ZeroDivisionError"):
        embed_in_processes([deaf, failing], MANIFEST, WorkUnits(tmp_path / "e.parquet"), SETTINGS, Notes())
    assert not is_alive(tmp_path / "pid")


def test_helpers_share_the_cores_and_take_the_gpus_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "cores", lambda: 9)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert share_of_machine(0, 4, gpus=0) == {"OMP_NUM_THREADS": "2"}
    assert share_of_machine(1, 99, gpus=0) == {"OMP_NUM_THREADS": "1"}
    assert [share_of_machine(shard, 4, gpus=2)["CUDA_VISIBLE_DEVICES"] for shard in range(4)] == ["0", "1", "0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    shares = [share_of_machine(shard, 3, gpus=2) for shard in range(3)]
    assert [share["CUDA_VISIBLE_DEVICES"] for share in shares] == ["5", "7", "5"]
    assert shares[0]["OMP_NUM_THREADS"] == "3"
