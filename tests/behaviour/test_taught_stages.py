"""Stages that learn from an earlier one: its features as targets, its logits in a distillation."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path

import pytest
from safetensors.torch import load_file

from toy_run import Notes, log_lines
from toy_stages import ENCODER, Fatal, filled, killed, material, post_recipe, pretrain_recipe
from tubelet.eval.progressive import check_stages, run_stages
from tubelet.eval.saved import load_classifier
from tubelet.masks import Random
from tubelet.methods.distillation import Distill
from tubelet.methods.predictor import MaskedPredictorSpec
from tubelet.recipe import FinetuneRecipe, PretrainRecipe, ProgressiveRecipe, Stage, change_stages
from tubelet.spec import replace
from tubelet.targets.features import Features
from tubelet.targets.frozen import Asked
from tubelet.targets.hog import Hog
from tubelet.train.taught import digest
from tubelet.weights.targets import live_target

FOLDERS = ("1-pixels", "2-features", "3-classes", "4-small")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return material(tmp_path_factory.mktemp("material"))


def features_recipe(folder: Path) -> PretrainRecipe:
    model = MaskedPredictorSpec(encoder=ENCODER)
    return replace(pretrain_recipe(folder), name="toy-features", model=model, mask=Random(ratio=0.5), target=Features())


def small_recipe(folder: Path) -> FinetuneRecipe:
    return replace(post_recipe(folder), name="toy-small", distill=Distill())


def stages_of(folder: Path) -> ProgressiveRecipe:
    """Pixels; the features of that; classes from those features; a student of those classes, from scratch."""
    stages = (
        Stage(name="pixels", recipe=pretrain_recipe(folder)),
        Stage(name="features", recipe=features_recipe(folder), start=None, teacher="previous"),
        Stage(name="classes", recipe=post_recipe(folder)),
        Stage(name="small", recipe=small_recipe(folder), start=None, teacher="classes"),
    )
    return filled(ProgressiveRecipe(name="toy-taught", stages=stages))


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Notes]:
    out, notes = tmp_path_factory.mktemp("whole") / "run", Notes()
    run_stages(stages_of(folder), out, notes)
    return out, notes


def test_a_stage_learns_from_the_weights_of_an_earlier_one(folder: Path, whole: tuple[Path, Notes]) -> None:
    out, notes = whole
    asked = live_target(replace(features_recipe(folder), target=Features(teacher=str(out / "1-pixels"))))
    assert isinstance(asked, Asked)
    teachers = {
        "2-features": ("1-pixels", asked.network.state_dict()),
        "4-small": ("3-classes", load_classifier(out / "3-classes").classifier.state_dict()),
    }
    for taught, (teacher, weights) in teachers.items():
        kept = json.loads((out / taught / "teacher.json").read_text())
        assert kept["sha256"] == digest(weights)
        assert Path(kept["file"]).is_relative_to(out / teacher)
        assert any(f"taught by {out / teacher}" in line for line in notes.lines)


@pytest.mark.parametrize(("stage", "step"), [("2-features", 3), ("4-small", 3)])
def test_a_stop_in_a_taught_stage_and_a_move_change_nothing(
    stage: str, step: int, folder: Path, whole: tuple[Path, Notes], tmp_path: Path
) -> None:
    recipe = stages_of(folder)
    assert killed(recipe, tmp_path / "old", Fatal(stage=stage, step_number=step, signal=signal.SIGKILL)) == -9
    (tmp_path / "old").rename(tmp_path / "new")
    run_stages(recipe, tmp_path / "new", Notes())
    for name in FOLDERS:
        assert log_lines(tmp_path / "new" / name) == log_lines(whole[0] / name)
        mine, other = (load_file(out / name / "model/model.safetensors") for out in (tmp_path / "new", whole[0]))
        assert all(mine[key].equal(other[key]) for key in mine | other)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["features.clip.size=32"], r"stage 'features': .*/1-pixels: the teacher's tokens are 2 x 2 x 2 .*2 x 4 x 4"),
        (["features.clip.frames=8"], r"stage 'features': .*/1-pixels: the teacher sees clips of 4 frames"),
        (
            ["small.clip.frames=8"],
            r"stage 'small': .*/3-classes: the teacher takes clips of 4 frames, this",
        ),
        (
            ["small.data.sources=[{train: FOLDER/a.csv}]"],
            r"stage 'small': .*/3-classes: the teacher has 3 classes, the labels 2: 'grey' of its classes is no label",
        ),
    ],
)
def test_a_stage_that_cannot_be_taught_is_refused_before_the_first_step(
    changes: list[str], said: str, folder: Path, tmp_path: Path
) -> None:
    recipe = filled(change_stages(stages_of(folder), [change.replace("FOLDER", str(folder)) for change in changes]))
    for look in (check_stages, lambda recipe, out: run_stages(recipe, out, Notes())):
        with pytest.raises(ValueError, match=said) as error:
            look(recipe, tmp_path / "run")
        assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("place", "changed", "said"),
    [
        (1, {"teacher": "classes"}, "stage 'features' learns from 'classes', which is not before it"),
        (1, {"teacher": "pixel"}, "stage 'features' learns from 'pixel', which is no stage; did you mean 'pixels'?"),
        (0, {"teacher": "previous"}, "stage 'pixels' learns from 'previous', which is not before it"),
        (3, {"teacher": "features"}, "stage 'small' learns classes, but 'features', its teacher, pre-trains"),
        (2, {"teacher": "pixels"}, "stage 'classes' has a teacher, stage 'pixels', but does not distil: set distill"),
    ],
)
def test_a_wrong_teacher_is_one_clear_line(place: int, changed: dict[str, str], said: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        filled(with_stage(stages_of(folder), place, **changed))


def test_a_teacher_named_twice_or_asked_by_nobody_is_one_clear_line(folder: Path) -> None:
    recipe = features_recipe(folder)
    own = with_stage(stages_of(folder), 1, recipe=replace(recipe, target=Features(teacher="file.pth")))
    with pytest.raises(ValueError, match=r"learns from stage 'pixels', and its recipe from file\.pth; take one out"):
        filled(own)
    with pytest.raises(ValueError, match=r"stage 'features' has a teacher, .* but its target asks none: set target=f"):
        filled(with_stage(stages_of(folder), 1, recipe=replace(recipe, target=Hog(cell=4))))


def with_stage(whole: ProgressiveRecipe, place: int, **changed: object) -> ProgressiveRecipe:
    stages = list(whole.stages)
    stages[place] = replace(stages[place], **changed)
    return replace(whole, stages=tuple(stages))


def test_a_stage_whose_teacher_was_made_anew_is_refused(
    folder: Path, whole: tuple[Path, Notes], tmp_path: Path
) -> None:
    out = Path(shutil.copytree(whole[0], tmp_path / "run"))
    model = "model/model.safetensors"
    other = filled(replace(stages_of(folder), seed=5))
    run_stages(filled(replace(other, stages=other.stages[:1])), tmp_path / "other", Notes())
    shutil.copy(tmp_path / "other/1-pixels" / model, out / "1-pixels" / model)
    with pytest.raises(ValueError, match=r"2-features: was begun with other weights than .*1-pixels, which it learns"):
        run_stages(stages_of(folder), out, Notes())


def test_all_may_be_done_again_with_another_width(folder: Path, tmp_path: Path) -> None:
    """What the folders held before is not what the stages will start and learn from."""
    first, second, *_ = stages_of(folder).stages
    again = Stage(name="again", recipe=pretrain_recipe(folder), start="pixels")
    recipe = filled(replace(stages_of(folder), stages=(first, second, again)))
    run_stages(recipe, tmp_path / "three", Notes())
    wider = filled(change_stages(recipe, ["all.model.encoder.width=48"]))
    run_stages(wider, tmp_path / "three", Notes(), redo="pixels")
    for name in ("1-pixels", "2-features", "3-again"):
        assert load_file(tmp_path / "three" / name / "model/model.safetensors")["encoder.norm.weight"].shape == (48,)
