"""A run that is stopped and continued is the run that was not stopped, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import toy_run
from safetensors.torch import load_file
from toy_run import Notes, finetune_job, killer, log_lines, pretrain_job, records

from tubelet.train.checkpoint.folder import saved
from tubelet.train.distributed.signals import Interrupted
from tubelet.train.loop import fit

BUILDERS = {"pretrain": pretrain_job, "finetune": finetune_job}


def run_program(out: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, toy_run.__file__, str(out), json.dumps(options)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=environment, check=False, start_new_session=True
    )


def assert_same_run(one: Path, other: Path) -> None:
    assert log_lines(one) == log_lines(other)
    files = sorted((one / "checkpoints/step-00000009").glob("*.safetensors"))
    assert files
    for file in files:
        left, right = load_file(file), load_file(other / file.relative_to(one))
        assert left.keys() == right.keys()
        assert all(left[name].equal(right[name]) for name in left), file


@pytest.mark.parametrize("kind", BUILDERS)
def test_the_same_seed_gives_the_same_run(kind: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        fit(BUILDERS[kind](tmp_path / name), Notes())
    assert_same_run(tmp_path / "one", tmp_path / "two")
    fit(BUILDERS[kind](tmp_path / "other", "seed=1"), Notes())
    assert log_lines(tmp_path / "one") != log_lines(tmp_path / "other")


@pytest.mark.parametrize("kind", BUILDERS)
@pytest.mark.parametrize("step", [1, 3, 4, 6, 9])
def test_stopping_after_any_step_changes_nothing(kind: str, step: int, tmp_path: Path) -> None:
    fit(BUILDERS[kind](tmp_path / "whole"), Notes())
    with pytest.raises(Interrupted) as stopped:
        fit(BUILDERS[kind](tmp_path / "parts"), Notes(act=killer(step, signal.SIGINT)))
    assert stopped.value.signal == signal.SIGINT
    assert saved(tmp_path / "parts")[-1].name == f"step-{step:08d}"
    fit(BUILDERS[kind](tmp_path / "parts"), Notes())
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("finetune", [False, True])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_process_continues_bit_for_bit(finetune: bool, number: int, tmp_path: Path) -> None:
    assert run_program(tmp_path / "whole", finetune=finetune).returncode == 0
    killed = run_program(tmp_path / "parts", finetune=finetune, kill={"step": 6, "signal": int(number)})
    assert killed.returncode == (143 if number == signal.SIGTERM else -signal.SIGKILL)
    last = saved(tmp_path / "parts")[-1].name
    assert last == ("step-00000006" if number == signal.SIGTERM else "step-00000004")
    again = run_program(tmp_path / "parts", finetune=finetune)
    assert again.returncode == 0, again.stderr
    assert last in again.stdout
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_spares_the_workers(number: int, tmp_path: Path) -> None:
    kill = {"step": 5, "signal": int(number), "group": True}
    stopped = run_program(tmp_path, recipe=["data.workers=2"], kill=kill)
    assert stopped.returncode == 128 + number
    assert "Traceback" not in stopped.stderr
    assert saved(tmp_path)[-1].name == "step-00000005"


def test_records_after_the_checkpoint_are_cut_off_also_half_written_ones(tmp_path: Path) -> None:
    fit(pretrain_job(tmp_path / "whole"), Notes())
    run_program(tmp_path / "parts", kill={"step": 7, "signal": 9})
    assert [record["step"] for record in records(tmp_path / "parts")] == [1, 2, 3, 4, 5, 6, 7]
    with (tmp_path / "parts/log.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')
    fit(pretrain_job(tmp_path / "parts"), Notes())
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_workers_do_not_change_the_run(tmp_path: Path) -> None:
    fit(pretrain_job(tmp_path / "none", "data.workers=0"), Notes())
    fit(pretrain_job(tmp_path / "two", "data.workers=2"), Notes())
    assert_same_run(tmp_path / "none", tmp_path / "two")


def test_a_finished_run_says_so_and_takes_no_step(tmp_path: Path) -> None:
    fit(finetune_job(tmp_path), Notes())
    before = log_lines(tmp_path)
    notes = Notes()
    fit(finetune_job(tmp_path), notes)
    assert notes.facts == []
    assert any("all 9 steps are done" in line and "--fresh" in line for line in notes.lines)
    assert log_lines(tmp_path) == before


def test_another_recipe_is_refused_and_the_differences_are_listed(tmp_path: Path) -> None:
    fit(pretrain_job(tmp_path), Notes())
    with pytest.raises(ValueError, match="another recipe") as refused:
        fit(pretrain_job(tmp_path, "optim.lr=0.1", "seed=3"), Notes())
    message = str(refused.value)
    assert "optim.lr (0.05 -> 0.1)" in message
    assert "seed (0 -> 3)" in message
    assert "--fresh" in message
    assert "\n" not in message


def test_settings_that_change_no_number_may_change_in_between(tmp_path: Path) -> None:
    fit(pretrain_job(tmp_path / "whole"), Notes())
    with pytest.raises(Interrupted):
        fit(pretrain_job(tmp_path / "parts"), Notes(act=killer(3, signal.SIGTERM)))
    fit(pretrain_job(tmp_path / "parts", "run.log_every=3", "run.save_every=2", "data.workers=1"), Notes())
    assert log_lines(tmp_path / "whole") == log_lines(tmp_path / "parts")
