"""Stages that learn from an earlier one: its features as targets, its logits in a distillation."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from ranks import run_ranks
from safetensors.torch import load_file
from toy_run import Notes, log_lines
from toy_stages import ENCODER, Fatal, filled, killed, material, post_recipe, pretrain_recipe, void

from tubelet.masks import Random
from tubelet.methods.distillation import Distill
from tubelet.methods.predictor import MaskedPredictorSpec
from tubelet.recipe import FinetuneRecipe, PretrainRecipe, ProgressiveRecipe, Stage, change_stages
from tubelet.runs.stages.run import check_stages, run_stages
from tubelet.runs.teacher_record import digest
from tubelet.spec import replace
from tubelet.targets.features import Features
from tubelet.targets.frozen import FrozenTarget
from tubelet.targets.hog import Hog
from tubelet.train.records.log import read_log
from tubelet.weights.classifier import load_classifier
from tubelet.weights.teachers import live_target

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
    assert isinstance(asked, FrozenTarget)
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
    refused(recipe, tmp_path / "run", said)
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
    with pytest.raises(ValueError, match=r"stage 'features' has a teacher, .* but its target hog asks no stage: set"):
        filled(with_stage(stages_of(folder), 1, recipe=replace(recipe, target=Hog(cell=4))))


def with_stage(whole: ProgressiveRecipe, place: int, **changed: object) -> ProgressiveRecipe:
    stages = list(whole.stages)
    stages[place] = replace(stages[place], **changed)
    return replace(whole, stages=tuple(stages))


def test_a_stage_whose_teacher_was_made_anew_is_refused(folder: Path, copy: Path, tmp_path: Path) -> None:
    model = "model/model.safetensors"
    other = filled(replace(stages_of(folder), seed=5))
    run_stages(filled(replace(other, stages=other.stages[:1])), tmp_path / "other", Notes())
    shutil.copy(tmp_path / "other/1-pixels" / model, copy / "1-pixels" / model)
    refused(stages_of(folder), copy, r"2-features: was begun with other weights than .*1-pixels, which it learns")


@pytest.fixture
def copy(whole: tuple[Path, Notes], tmp_path: Path) -> Path:
    """A finished run that may be spoilt."""
    return Path(shutil.copytree(whole[0], tmp_path / "run"))


def refused(recipe: ProgressiveRecipe, out: Path, said: str, *, redo: str | None = None) -> None:
    """In one line, by the look alone and by the run, and nothing is touched."""
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    looks: tuple[Callable[[], object], ...] = (
        lambda: check_stages(recipe, out, redo=redo),
        lambda: run_stages(recipe, out, Notes(), redo=redo),
    )
    for look in looks:
        with pytest.raises(ValueError, match=said) as error:
            look()
        assert "\n" not in str(error.value)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        ("file.pth", r"4-small: .* finished with another recipe: teacher \(.*3-classes -> file.pth\); redo it"),
        (None, r"4-small: .* finished with another recipe: teacher \(.*3-classes -> None\); redo it"),
    ],
)
def test_another_teacher_for_a_finished_stage_is_refused(
    teacher: str | None, said: str, folder: Path, copy: Path
) -> None:
    small = replace(small_recipe(folder), distill=Distill(teacher=teacher))
    refused(with_stage(stages_of(folder), 3, teacher=None, recipe=small), copy, said)


def test_a_stage_that_a_file_taught_is_not_one_that_a_stage_taught(folder: Path, copy: Path, tmp_path: Path) -> None:
    teacher = Path(shutil.copytree(copy / "3-classes", tmp_path / "elsewhere"))
    small = replace(small_recipe(folder), distill=Distill(teacher=str(teacher)))
    by_file = with_stage(stages_of(folder), 3, teacher=None, recipe=small)
    run_stages(by_file, copy, Notes(), redo="small")
    run_stages(by_file, copy, Notes())
    refused(stages_of(folder), copy, r"4-small: was not begun with .*3-classes, which it learns from; redo it")


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        (None, r"stage 'small': no teacher to learn from: .*teacher: STAGE"),
        ("bad.pth", r"stage 'small': .*bad\.pth: "),
        ("nowhere", r"stage 'small': .*nowhere: no such teacher"),
        ("run/1-pixels", r"stage 'small': .*run/1-pixels: a pretrain run has no classes"),
    ],
)
def test_a_teacher_that_is_none_is_refused_before_the_first_step(
    teacher: str | None, said: str, folder: Path, copy: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.pth").write_text("no file")
    named = None if teacher is None else str(tmp_path / teacher)
    small = replace(small_recipe(folder), distill=Distill(teacher=named))
    refused(with_stage(stages_of(folder), 3, teacher=None, recipe=small), copy, said, redo="features")


@pytest.mark.parametrize("taken", ["start", "teacher"])
def test_work_stays_where_what_it_is_to_be_done_again_from_is_damaged(taken: str, folder: Path, copy: Path) -> None:
    stage, needed = {"start": ("classes", "2-features"), "teacher": ("small", "3-classes")}[taken]
    file = copy / needed / "model/model.safetensors"
    file.write_bytes(file.read_bytes()[:200])
    refused(stages_of(folder), copy, rf"stage '{stage}': .*{needed}/model/model.safetensors: ", redo=stage)


def test_a_seal_of_the_older_form_is_read(folder: Path, copy: Path) -> None:
    seal = copy / "3-classes/stage.json"
    found = json.loads(seal.read_text())["start"]
    seal.write_text(json.dumps({"start": found["stage"], "sha256": found["sha256"]}))
    run_stages(stages_of(folder), copy, Notes())
    seal.write_text(json.dumps({"start": found["stage"], "sha256": "0" * 64}))
    refused(stages_of(folder), copy, r"3-classes: was begun with other weights than .*2-features, which it starts from")


def test_learnt_positions_fit_a_start_that_is_still_to_come(folder: Path, tmp_path: Path) -> None:
    """They are stretched for a larger clip, from a stage that is there as from one that is not."""
    small = replace(
        pretrain_recipe(folder), schedule=replace(pretrain_recipe(folder).schedule, epochs=1, warmup_epochs=0)
    )
    stages = (Stage(name="small", recipe=small), Stage(name="large", recipe=small, changes=("clip.size=32",)))
    recipe = ProgressiveRecipe(name="sizes", stages=stages)
    recipe = filled(change_stages(recipe, ["all.model.encoder.learnable_positions=true"]))
    run_stages(recipe, tmp_path / "run", Notes())
    run_stages(recipe, tmp_path / "run", Notes(), redo="small")


def test_two_ranks_take_taught_stages_together(folder: Path, whole: tuple[Path, Notes], tmp_path: Path) -> None:
    recipe = stages_of(folder)
    ended = run_ranks(2, lambda rank: void(run_stages(recipe, tmp_path / "run", Notes())), tmp_path / "ranks")
    assert [one.code for one in ended] == [0, 0]
    for name in FOLDERS:
        mine, alone = (list(losses(out / name)) for out in (tmp_path / "run", whole[0]))
        assert mine == pytest.approx(alone, rel=1e-5, abs=1e-6)


def losses(run: Path) -> list[float]:
    return [record["loss"] for record in read_log(run / "log.jsonl") if "loss" in record]


def test_all_may_be_done_again_with_another_size(folder: Path, tmp_path: Path) -> None:
    """What the folders held before is not what the stages will start and learn from."""
    first, second, *_ = stages_of(folder).stages
    again = Stage(name="again", recipe=pretrain_recipe(folder), start="pixels")
    recipe = filled(replace(stages_of(folder), stages=(first, second, again)))
    run_stages(recipe, tmp_path / "three", Notes())
    wider = filled(change_stages(recipe, ["all.model.encoder.width=48", "all.clip.size=32"]))
    run_stages(wider, tmp_path / "three", Notes(), redo="pixels")
    for name in ("1-pixels", "2-features", "3-again"):
        assert load_file(tmp_path / "three" / name / "model/model.safetensors")["encoder.norm.weight"].shape == (48,)
