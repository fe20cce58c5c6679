"""Runs that start from the encoder of another model: pixels to HOG, a classifier to pre-training, images to clips."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from toy_claims import say
from toy_labelled import labelled_folder
from toy_run import finetune_recipe, pretrain_recipe, records

from tubelet.recipe import EncoderRun, override, to_yaml

SHORT = ("schedule.epochs=1", "schedule.warmup_epochs=0", "run.batch_size=2")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with videos of two classes, and a finished pre-training on their pixels, `pixels`."""
    monkeypatch.chdir(tmp_path)
    labelled_folder(tmp_path / "videos", each=2)
    run("pretrain", pretrain_recipe(), "pixels")
    return tmp_path


def run(command: str, recipe: EncoderRun, out: str, *words: str) -> str:
    data = "data.videos=videos" if command == "pretrain" else "data.train=videos"
    Path(f"{out}.yaml").write_text(to_yaml(override(recipe, [*SHORT, data])))
    return say(command, f"{out}.yaml", "--out", out, *words)


def test_pixels_to_hog_and_on_after_a_stop(here: Path) -> None:
    recipe = pretrain_recipe("target={kind: hog, cell: 4}", "start_part=encoder", "start=pixels", "run.save_every=1")
    said = " ".join(run("pretrain", recipe, "hog").split())
    assert "encoder from pixels/model/model.safetensors" in said
    assert "not used (decoder" in said
    assert "fresh: decoder" in said
    before = records(here / "hog")
    shutil.rmtree("hog/model")
    shutil.rmtree("hog/checkpoints/step-00000002")
    shutil.rmtree("pixels")  # what it started from is not needed any more
    assert "going on after step 1" in say("pretrain", "hog.yaml", "--out", "hog")
    assert [one["loss"] for one in records(here / "hog")] == [one["loss"] for one in before]


def test_another_target_is_no_start_of_the_whole(here: Path) -> None:
    recipe = pretrain_recipe("target={kind: hog, cell: 4}", "start=pixels")
    Path("hog.yaml").write_text(to_yaml(override(recipe, [*SHORT, "data.videos=videos"])))
    assert "start_part=encoder takes that" in say("pretrain", "hog.yaml", "--out", "hog", code=2)


def test_a_classifier_to_pretraining_and_its_options(here: Path) -> None:
    run("finetune", finetune_recipe("classes=null", "ema=null"), "fine", "--start", "pixels")
    said = run("pretrain", pretrain_recipe(), "again", "--start", "fine", "--start-part", "encoder")
    assert "encoder from fine/model/model.safetensors" in said


def test_images_to_clips(here: Path) -> None:
    image = ("clip.frames=1", "model.encoder.tubelet=1", "data.sampler={kind: strided, stride: 1}")
    run("pretrain", pretrain_recipe(*image), "images")
    said = run("finetune", finetune_recipe("classes=null"), "fine", "--start", "images", "--inflate", "mean")
    assert "inflated to 2 frames (mean)" in " ".join(said.split())
    assert "positions are made anew" in " ".join(said.split())
