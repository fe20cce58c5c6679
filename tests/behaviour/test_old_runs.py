"""Run folders of an older version (`fixtures/old_runs`): they are read, gone on with and started from as ever."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from old_runs import EXPECTED, FOLDER, LAST, answers, write_videos
from toy_claims import say
from toy_run import records

OLD: dict[str, dict[str, Any]] = json.loads((FOLDER / EXPECTED).read_text())
COMMANDS = {"pretrained": "pretrain", "finetuned": "finetune", "maskfeat": "pretrain"}
SPOKEN = ("vector", "last_token", "logits")
AFTER = 4
"""Step of the checkpoints."""

every_run = pytest.mark.parametrize("name", OLD)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: copies of the runs, and the videos that they saw."""
    for name in OLD:
        shutil.copytree(FOLDER / name, tmp_path / name)
    write_videos(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_says(found: dict[str, Any], old: dict[str, Any], *, rtol: float, atol: float) -> None:
    for name in SPOKEN:
        if name in old:
            torch.testing.assert_close(torch.tensor(found[name]), torch.tensor(old[name]), rtol=rtol, atol=atol)


def assert_same_numbers(run: Path, old: Path) -> None:
    """The same records, and each number of the old ones in them; other machines round in another way."""
    new_records, old_records = records(run), records(old)
    assert [one["step"] for one in new_records] == [one["step"] for one in old_records]
    for new, before in zip(new_records, old_records, strict=True):
        for name, value in before.items():
            assert new[name] == pytest.approx(value, rel=1e-4), f"{name} of step {before['step']}"


@every_run
def test_the_model_says_what_it_said(name: str, here: Path) -> None:
    """Vector, tokens and classes by `tubelet.load`; what `weights inspect` lists, by name and shape of each tensor."""
    found, old = answers(Path(name)), OLD[name]
    assert_says(found, old, rtol=1e-5, atol=1e-6)
    assert found.get("names") == old.get("names")
    assert {fact: found["inspect"][fact] for fact in old["inspect"]} == old["inspect"]


@every_run
def test_weights_inspect_shows_it(name: str, here: Path) -> None:
    shown = say("weights", "inspect", name)
    assert "4 frames of 32 x 32" in shown
    assert ("2 (bright, dark)" in shown) == (name == "finetuned")


@every_run
def test_it_goes_on_from_its_checkpoint_to_the_same_numbers(name: str, here: Path) -> None:
    said = say(COMMANDS[name], f"{name}/recipe.yaml", "--out", name)
    assert f"going on after step {AFTER}" in said
    assert records(here / name)[-1]["step"] == LAST
    assert_same_numbers(here / name, FOLDER / name)
    assert_says(answers(Path(name)), OLD[name], rtol=1e-3, atol=1e-4)


@every_run
def test_its_recipe_runs_again_to_the_same_numbers(name: str, here: Path) -> None:
    """Of the classifier that is a fine-tuning that starts from the old pre-training."""
    said = say(COMMANDS[name], f"{name}/recipe.yaml", "--out", "again")
    assert ("encoder from pretrained/model/model.safetensors" in said) == (name == "finetuned")
    assert_same_numbers(here / "again", FOLDER / name)


def test_todays_recipe_starts_from_the_old_encoder(here: Path) -> None:
    vit = ("model.encoder.width=16", "model.encoder.depth=2", "model.encoder.heads=2")
    clip = ("clip.frames=4", "clip.size=32")
    short = ("schedule.epochs=1", "schedule.warmup_epochs=0", "run.batch_size=4", "run.device=cpu", "data.workers=0")
    training = ("--train", "by-class", "--start", "pretrained", "--out", "fine")
    said = say("finetune", "videomae-ti-cpu-finetune", *training, *vit, *clip, *short)
    assert "encoder from pretrained/model/model.safetensors" in said
    assert records(here / "fine")[-1]["step"] == 2
    assert (here / "fine/model/classes.txt").read_text() == "bright\ndark\n"
