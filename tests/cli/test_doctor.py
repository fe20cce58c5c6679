"""`tubelet doctor` reports facts, gives advice, and fails only when something essential does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tubelet.cli import main
from tubelet.doctor import machine
from tubelet.doctor.machine import Finding, inspect_machine, is_usable


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["doctor", *arguments])
    return int(stop.value.code or 0)


def test_json_lists_the_facts_and_says_usable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--json", "--out", str(tmp_path)) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["usable"] is True
    names = {item["name"] for item in report["findings"]}
    assert {"Python", "PyTorch", "Cores", "Memory", "Decoder", "Disk", "Decode test", "Training test"} <= names
    assert all(item["advice"] for item in report["findings"] if item["state"] != "ok")


def test_table_is_shown_with_advice_for_warnings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    findings = (Finding("Cores", "warning", "2", "set data.cache"), Finding("Disk", "ok", "9 GiB", "not shown"))
    monkeypatch.setattr(machine, "inspect_machine", lambda _: findings)
    assert run() == 0
    shown = capsys.readouterr().out
    assert "set data.cache" in shown
    assert "not shown" not in shown


def test_exit_code_is_1_when_decoding_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> str:
        raise RuntimeError("no decoder")

    monkeypatch.setattr(machine, "decode_trial", broken)
    assert run("--json", "--out", str(tmp_path)) == 1
    failed = [item for item in json.loads(capsys.readouterr().out)["findings"] if item["state"] == "fails"]
    assert [item["name"] for item in failed] == ["Decode test"]
    assert "no decoder" in failed[0]["value"]


def test_a_folder_that_does_not_exist_yet_is_judged_by_its_parent(tmp_path: Path) -> None:
    disk = next(item for item in inspect_machine(tmp_path / "new" / "run") if item.name == "Disk")
    assert str(tmp_path) in disk.value


def test_warnings_leave_a_machine_usable() -> None:
    assert is_usable([Finding("Cores", "warning", "1", "x")])
    assert not is_usable([Finding("Disk", "fails", "x", "y")])
