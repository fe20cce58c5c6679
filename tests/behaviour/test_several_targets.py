"""Several weighted targets in a run: trained, stopped, shared by two ranks, planned, drawn and read again."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_claims import assert_goes_on, assert_two_ranks_agree, say
from toy_dvae import write_dvae
from toy_labelled import labelled_folder
from toy_run import Notes, killer, records
from toy_targets import toy, write_image_model

import tubelet
from tubelet.models.tokenizers.dvae import DvaeSpec
from tubelet.recipe import parse_recipe, to_yaml, write_recipe
from tubelet.rng import step_rng
from tubelet.runs.pretrain import pretrain
from tubelet.train.distributed.signals import Interrupted
from tubelet.types import Cube

PIXELS_AND_HOG = "target=[{kind: hog, cell: 4, weight: 0.5}, normalised_pixels]"
HOG, PIXELS = 108, 3 * 2 * 8 * 8


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_folder(tmp_path_factory.mktemp("videos"), each=3)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teachers")
    with step_rng(5, 0):
        write_image_model(folder / "image")
    write_dvae(DvaeSpec(width=8, blocks=1, vocabulary=9), folder / "ids")
    return folder


def taught(teachers: Path) -> str:
    """Ids, histograms and features; the two that ask come last in the head, whatever their place here."""
    return (
        f"target=[{{kind: tokens, teacher: {teachers / 'ids'}}}, {{kind: hog, cell: 4}}, "
        f"{{kind: features, teacher: {teachers / 'image'}, weight: 2.0, error: smooth_l1, beta: 0.5}}]"
    )


@pytest.mark.parametrize("shape", ["masked_autoencoder", "masked_predictor"])
def test_the_loss_is_the_weighted_sum_and_each_part_is_logged(shape: str, videos: Path, tmp_path: Path) -> None:
    recipe = toy(videos, PIXELS_AND_HOG, shape=shape)
    assert parse_recipe(to_yaml(recipe), "again") == recipe
    write_recipe(recipe, tmp_path / "toy.yaml")
    say("pretrain", str(tmp_path / "toy.yaml"), "--out", str(tmp_path / "run"))
    found = records(tmp_path / "run")
    assert len(found) == 4
    for record in found:
        total = 0.5 * record["loss_hog"] + record["loss_normalised_pixels"]
        assert record["loss"] == pytest.approx(total, rel=1e-6)
    head = "prediction_head" if shape == "masked_predictor" else "decoder.head"
    assert len(load_file(tmp_path / "run/model/model.safetensors")[f"{head}.bias"]) == HOG + PIXELS


def test_a_list_of_one_is_that_one(videos: Path, tmp_path: Path) -> None:
    alone = pretrain(toy(videos, "target=hog", "target.cell=4"), tmp_path / "alone", Notes())
    listed = pretrain(toy(videos, "target=[{kind: hog, cell: 4}]"), tmp_path / "listed", Notes())
    one, other = (load_file(folder / "model.safetensors") for folder in (alone, listed))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert [record["loss"] for record in records(tmp_path / "alone")] == [
        record["loss"] for record in records(tmp_path / "listed")
    ]


def test_stopping_and_going_on_changes_nothing_where_teachers_have_moved(
    videos: Path, teachers: Path, tmp_path: Path
) -> None:
    shutil.copytree(teachers, tmp_path / "moved")
    recipe = toy(videos, taught(teachers), "run.save_every=1")
    assert_goes_on(recipe, tmp_path, step=2, then=toy(videos, taught(tmp_path / "moved"), "run.save_every=1"))


def test_both_teachers_are_written_down_and_another_is_refused(videos: Path, teachers: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        pretrain(toy(videos, taught(teachers)), out, Notes(act=killer(2, signal.SIGTERM)))
    kept = json.loads((out / "teacher.json").read_text())
    assert [Path(one["file"]).name for one in kept] == ["ids", "image"]
    shutil.copytree(teachers, tmp_path / "other")
    write_dvae(DvaeSpec(width=16, blocks=1, vocabulary=9), tmp_path / "other/ids")
    with pytest.raises(ValueError, match=r"another teacher than .*ids; give that one with target\.teacher"):
        pretrain(toy(videos, taught(tmp_path / "other")), out, Notes())
    with pytest.raises(ValueError, match=r"target\.0\.kind|target"):
        pretrain(toy(videos, PIXELS_AND_HOG), out, Notes())


def test_a_teacher_is_not_replaced_by_what_it_is_for(videos: Path, teachers: Path) -> None:
    recipe = toy(videos, taught(teachers))
    with pytest.raises(ValueError, match=r"target\[0\]\.teacher lies in"):
        pretrain(recipe, teachers / "ids", Notes())


def test_two_ranks_give_the_losses_of_one_process(videos: Path, teachers: Path, tmp_path: Path) -> None:
    assert_two_ranks_agree(toy(videos, taught(teachers), "run.batch_size=4"), tmp_path)


def test_a_model_is_planned_read_and_drawn_without_its_teachers(videos: Path, teachers: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(teachers, tmp_path / "teachers"))
    recipe, out = toy(videos, taught(mine)), tmp_path / "run"
    write_recipe(recipe, tmp_path / "toy.yaml")
    text = say("plan", str(tmp_path / "toy.yaml"), "--steps", "0", "--device", "H100", "--videos", "100")
    assert text.count("gives the targets") == 2
    say("pretrain", str(tmp_path / "toy.yaml"), "--out", str(out))
    shutil.rmtree(mine)
    assert re.search(r"not used +nothing", say("weights", "inspect", str(out)))
    model = tubelet.load(out, device="cpu")
    assert model.autoencoder is not None
    assert model.autoencoder.target.kind == "hog + tokens + features"
    assert model.autoencoder.target.width(Cube(2, 8, 8)) == HOG + 9 + 20
    say("reconstruct", str(videos / "dark/0.mp4"), "--from", str(out), "-o", str(tmp_path / "hog.png"))
    assert (tmp_path / "hog.png").is_file()
    again = say("pretrain", str(tmp_path / "toy.yaml"), "--out", str(tmp_path / "next"), f"start={out}", code=2)
    assert "no such teacher" in again


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("target=[]", "target.parts: Tuple should have at least 1 item"),
        ("target=[{kind: hog, wieght: 2}]", "unknown field"),
        ("target=[{kind: hogg}]", "unknown kind 'hogg'; did you mean 'hog'?"),
        ("target=[{kind: hog, weight: 0}]", "greater than 0"),
        ("target=[features, {kind: tokens, teacher: x}]", "target features: no network to ask"),
        ("target=hogg", "target: unknown kind 'hogg'; did you mean 'hog'?"),
        ("target={kind: pixels, beta: 2.0}", "beta is for error=smooth_l1, not squared"),
        ("mask=rings", "mask: unknown kind 'rings'; "),
    ],
)
def test_mistakes_are_told_in_one_line(change: str, says: str, videos: Path, tmp_path: Path) -> None:
    write_recipe(toy(videos), tmp_path / "toy.yaml")
    text = say("pretrain", str(tmp_path / "toy.yaml"), "--out", str(tmp_path / "run"), change, code=2)
    assert says in text.strip().splitlines()[-1]


def test_a_video_that_moves_is_learnt_where_it_moves(videos: Path, tmp_path: Path) -> None:
    """The decode rule that looks at the clip: resumed, planned and drawn like any other."""
    rule = "decode={kind: motion, ratio: 0.4, random: 0.3}"
    recipe = toy(videos, rule, "mask={kind: tube, ratio: 0.75}", "run.save_every=1", shape="masked_autoencoder")
    assert_goes_on(recipe, tmp_path, step=2)
    write_recipe(recipe, tmp_path / "toy.yaml")
    say("plan", str(tmp_path / "toy.yaml"), "--steps", "0", "--device", "H100", "--videos", "100")
    run = pretrain(recipe, tmp_path / "run", Notes()).parent
    say("reconstruct", str(videos / "dark/0.mp4"), "--from", str(run), "-o", str(tmp_path / "a.png"))
    say("reconstruct", str(videos / "dark/0.mp4"), "--from", str(run), "-o", str(tmp_path / "b.png"))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_two_ranks_choose_the_tokens_of_one_process(videos: Path, tmp_path: Path) -> None:
    rule = ("decode={kind: motion, ratio: 0.4, random: 0.3}", "mask={kind: tube, ratio: 0.75}", "run.batch_size=4")
    assert_two_ranks_agree(toy(videos, *rule, shape="masked_autoencoder"), tmp_path)
