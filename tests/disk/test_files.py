"""A crash leaves the old file or the new one; records and lists read back what was written."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from toy_run import ToySet

from tubelet.data.dataset import Skipped
from tubelet.data.streams import StreamSet
from tubelet.disk.lock import new_folder, remove_leftovers, write_text
from tubelet.train.distributed.signals import stop_request
from tubelet.train.records.log import RunLog, read_log
from tubelet.train.records.skips import Skips, read_skipped


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with new_folder(folder) as temporary:
        (temporary / "old").write_text("1")
    with pytest.raises(KeyboardInterrupt):
        stop_within(folder)
    assert [path.name for path in folder.iterdir()] == ["old"]
    with new_folder(folder) as temporary:
        (temporary / "new").write_text("2")
    assert [path.name for path in folder.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def stop_within(folder: Path) -> None:
    with new_folder(folder) as temporary:
        (temporary / "new").write_text("2")
        raise KeyboardInterrupt


def test_a_text_is_replaced_whole_and_leftovers_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "one")
    write_text(path, "two")
    assert path.read_text() == "two"
    (tmp_path / ".a.txt.tmp").write_text("half")
    (tmp_path / ".step-1.tmp").mkdir()
    (tmp_path / ".mine").write_text("stays")
    remove_leftovers(tmp_path)
    assert sorted(item.name for item in tmp_path.iterdir()) == [".mine", "a.txt"]


def test_numbers_of_the_log_read_back_exactly(tmp_path: Path) -> None:
    numbers = [0.1 + 0.2, 1e-320, 123456.789e12]
    log = RunLog(tmp_path, step=0)
    for step, number in enumerate(numbers, start=1):
        log.write_step({"step": step, "epoch": 0, "loss": number})
    log.write_evaluation(3, 0, {"accuracy": 0.25})
    log.close()
    assert [record["loss"] for record in read_log(tmp_path / "log.jsonl")[:3]] == numbers
    again = RunLog(tmp_path, step=2)
    again.close()
    assert again.evaluated == set()
    assert [record["step"] for record in read_log(tmp_path / "log.jsonl")] == [1, 2]


def test_a_damaged_line_within_the_log_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"log\.jsonl:2"):
        read_log(path)


def test_skipped_files_with_odd_names_read_back(tmp_path: Path) -> None:
    odd = Path('a, "b"/ü.mp4')
    streams = (StreamSet("video", ToySet(count=10), 4, max_skipped=0.5),)
    skips = Skips(tmp_path, streams, step=0)
    one = Skipped(3, odd.name, odd, "no\nframes, at all")
    assert skips.note([one, one], 4) == (one,)
    assert skips.note([one], 5) == ()
    assert read_skipped(tmp_path / "skipped.csv") == [
        {"path": str(odd), "reason": "no frames, at all", "first_step": "4"}
    ]
    assert len(Skips(tmp_path, streams, step=4)) == 1
    assert len(Skips(tmp_path, streams, step=3)) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signals_of_people_and_schedulers_are_heeded(number: int) -> None:
    with stop_request() as stop:
        signal.raise_signal(number)
        assert stop.signal == number


def test_one_request_delivered_twice_is_one_and_a_later_ctrl_c_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    now = time.monotonic()
    with stop_request() as stop:
        assert stop.signal is None
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
        assert stop.signal == signal.SIGTERM
        monkeypatch.setattr("tubelet.train.distributed.signals.time.monotonic", lambda: now + 60)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before
