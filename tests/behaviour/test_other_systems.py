"""Windows and macOS, as far as this machine can play them: no fork, no fcntl, no timers, processes spawned."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from toy_labelled import write_video
from toy_run import Notes, pretrain_recipe

from tubelet.recipe import write_recipe
from tubelet.runs.pretrain import pretrain

BARE = Path(__file__).parents[1] / "toys" / "bare_system.py"


def on_bare_system(*arguments: object) -> str:
    command = [sys.executable, "-W", "ignore", str(BARE), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for index in range(4):
        write_video(folder / f"{index}.mp4", 90, seed=index)
    return folder


def test_every_module_is_imported() -> None:
    assert "tubelet.disk.lock" in on_bare_system("import-all").splitlines()


def test_help_is_shown() -> None:
    assert "pretrain" in on_bare_system("--help")


def test_doctor_says_in_one_line_what_is_missing(tmp_path: Path) -> None:
    said = on_bare_system("doctor", "--json", "--out", tmp_path)
    assert "cannot bound the time and memory that reading a file takes" in said
    assert "tubelet check" in said
    assert "this system does not say" in said


def test_a_run_with_a_spawned_worker_learns_the_same(videos: Path, tmp_path: Path) -> None:
    recipe = pretrain_recipe(f"data.videos={videos}", "schedule.epochs=2", "run.batch_size=2")
    write_recipe(recipe, tmp_path / "toy.yaml")
    on_bare_system("pretrain", tmp_path / "toy.yaml", "--out", tmp_path / "bare", "data.workers=1")
    pretrain(recipe, tmp_path / "here", Notes())
    bare, usual = (load_file(tmp_path / run / "model/model.safetensors") for run in ("bare", "here"))
    assert all(value.equal(bare[name]) for name, value in usual.items())
    assert not (tmp_path / "bare/.lock").exists()
