"""Stages one after the other: stopped anywhere and continued they end in the same weights, bit for bit."""

from __future__ import annotations

import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
from ranks import run_ranks
from safetensors.torch import load_file
from toy_run import Notes, log_lines
from toy_stages import Fatal, filled, killed, material, post_recipe, target_recipe, toy_stages, void

from tubelet.recipe import ProgressiveRecipe, Stage, change_stages, override, read_any_recipe
from tubelet.runs.stages.run import check_stages, run_stages
from tubelet.spec import replace

FOLDERS = ("1-pretrain", "2-post", "3-target")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> ProgressiveRecipe:
    return toy_stages(material(tmp_path_factory.mktemp("material")))


@pytest.fixture(scope="module")
def whole(recipe: ProgressiveRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run_stages(recipe, out, Notes())
    return out


def assert_same(one: Path, other: Path) -> None:
    for folder in FOLDERS:
        assert log_lines(one / folder) == log_lines(other / folder)
        left, right = (load_file(out / folder / "model/model.safetensors") for out in (one, other))
        assert left.keys() == right.keys()
        assert all(left[name].equal(right[name]) for name in left), folder


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize(("stage", "step"), [("1-pretrain", 3), ("2-post", 5), ("3-target", 1)])
def test_a_stop_in_any_stage_changes_nothing(
    stage: str, step: int, number: int, recipe: ProgressiveRecipe, whole: Path, tmp_path: Path
) -> None:
    code = killed(recipe, tmp_path / "run", Fatal(stage=stage, step_number=step, signal=number))
    assert code == (-9 if number == signal.SIGKILL else 143)
    notes = Notes()
    run_stages(recipe, tmp_path / "run", notes)
    assert_same(whole, tmp_path / "run")
    finished = [line for line in notes.lines if "finished before" in line]
    assert len(finished) == FOLDERS.index(stage)


@pytest.mark.parametrize(
    ("line", "number"),
    [("stage 2/3", signal.SIGTERM), ("stage 3/3", signal.SIGKILL), ("test of target", signal.SIGINT)],
)
def test_a_stop_between_stages_or_in_the_test_changes_nothing(
    line: str, number: int, recipe: ProgressiveRecipe, whole: Path, tmp_path: Path
) -> None:
    code = killed(recipe, tmp_path / "run", Fatal(line=line, signal=number))
    assert code == (-9 if number == signal.SIGKILL else 128 + number)
    (*_, target) = run_stages(recipe, tmp_path / "run", Notes())
    assert_same(whole, tmp_path / "run")
    assert target.top1 is not None


def test_a_folder_may_be_moved_while_it_rests(recipe: ProgressiveRecipe, whole: Path, tmp_path: Path) -> None:
    killed(recipe, tmp_path / "old", Fatal(stage="2-post", step_number=3, signal=signal.SIGTERM))
    (tmp_path / "old").rename(tmp_path / "new")
    run_stages(recipe, tmp_path / "new", Notes())
    assert_same(whole, tmp_path / "new")


def test_each_stage_starts_from_the_one_before_and_the_head_from_its_classes(
    recipe: ProgressiveRecipe, tmp_path: Path
) -> None:
    notes = Notes()
    out = tmp_path / "run"
    pretrain, post, target = run_stages(recipe, out, notes)
    text = "\n".join(notes.lines)
    assert f"encoder from {out}/1-pretrain/model/model.safetensors" in text
    assert f"encoder from {out}/2-post/model/model.safetensors" in text
    assert "head: 2 of 3 classes by their names; 1 start fresh: green" in text
    assert [one.steps for one in (pretrain, post, target)] == [6, 6, 2]
    assert (post.val, post.top1) == (None, None)
    assert target.tested == 6
    assert target.val is not None
    header, first, *_ = (out / "stages.csv").read_text().splitlines()
    assert header.startswith("stage,kind,epochs,steps,loss")
    assert first.startswith("pretrain,pretrain,2,6,")
    again = Notes()
    assert run_stages(recipe, out, again) == (pretrain, post, target)
    assert again.facts == []


def test_the_run_folder_holds_a_recipe_that_runs_it_again(
    recipe: ProgressiveRecipe, whole: Path, tmp_path: Path
) -> None:
    kept = read_any_recipe(whole / "recipe.yaml")
    assert kept == recipe
    assert isinstance(kept, ProgressiveRecipe)


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A finished run that may be spoilt."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


def refused(recipe: ProgressiveRecipe, out: Path) -> str:
    before = sorted(out.rglob("*"))
    with pytest.raises(ValueError, match=r".") as error:
        run_stages(recipe, out, Notes())
    assert sorted(out.rglob("*")) == before
    assert "\n" not in str(error.value)
    return str(error.value)


def test_another_recipe_for_a_finished_stage_is_refused(recipe: ProgressiveRecipe, copy: Path) -> None:
    message = refused(changed(recipe, "post", "optim.lr=0.2"), copy)
    assert "2-post: this stage was finished with another recipe: optim.lr (0.1 -> 0.2); redo" in message
    assert "--from post" in message
    run_stages(changed(recipe, "all", "run.threads=2", "data.workers=1"), copy, Notes())  # no number depends on it


def test_from_a_stage_on_all_is_done_again(recipe: ProgressiveRecipe, copy: Path, whole: Path) -> None:
    kept = (copy / "1-pretrain/model/model.safetensors").stat().st_mtime_ns
    other = changed(recipe, "post", "optim.lr=0.2")
    notes = Notes()
    run_stages(other, copy, notes, redo="post")
    assert "removed the work of 2-post, 3-target" in notes.lines[0]
    assert (copy / "1-pretrain/model/model.safetensors").stat().st_mtime_ns == kept
    for folder in FOLDERS[1:]:
        left, right = (load_file(out / folder / "model/model.safetensors") for out in (copy, whole))
        assert not all(left[name].equal(right[name]) for name in left)
    run_stages(recipe, copy, Notes(), fresh=True)
    assert_same(whole, copy)
    assert refused_redo(recipe, copy, "pots") == "no stage is called 'pots'; did you mean 'post'?"


def refused_redo(recipe: ProgressiveRecipe, out: Path, redo: str) -> str:
    with pytest.raises(ValueError, match=r".") as error:
        run_stages(recipe, out, Notes(), redo=redo)
    return str(error.value)


def test_a_stage_whose_start_was_made_anew_is_refused(recipe: ProgressiveRecipe, copy: Path) -> None:
    shutil.copy(copy / "3-target/model/model.safetensors", copy / "2-post/model/model.safetensors")
    message = refused(recipe, copy)
    assert "3-target: was begun with other weights than" in message
    shutil.rmtree(copy / "2-post")
    assert "2-post, which it starts from, has none" in refused(recipe, copy)


def test_a_finished_stage_needs_its_videos_no_more(tmp_path: Path) -> None:
    videos = material(tmp_path / "material")
    recipe = toy_stages(videos)
    code = killed(recipe, tmp_path / "run", Fatal(line="stage 2/3", signal=signal.SIGTERM))
    assert code == 143
    (videos / "one.txt").unlink()
    run_stages(recipe, tmp_path / "run", Notes())


def test_a_stage_that_was_tested_needs_its_test_no_more(tmp_path: Path) -> None:
    videos = material(tmp_path / "material")
    shutil.copy(videos / "a.csv", videos / "test.csv")
    shutil.copytree(videos / "target", videos / "others")
    post = Stage(name="post", recipe=post_recipe(videos), evaluate=str(videos / "test.csv"))
    own = override(target_recipe(videos), [f"data.val={videos / 'others'}"])
    target = Stage(name="target", recipe=own, evaluate=True)
    recipe = filled(ProgressiveRecipe(name="toy", stages=(post, target)))
    results = run_stages(recipe, tmp_path / "run", Notes())
    (videos / "test.csv").unlink()
    shutil.rmtree(videos / "others")
    notes = Notes()
    assert run_stages(recipe, tmp_path / "run", notes) == results
    assert not [line for line in notes.lines if line.startswith("test of")]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"post": ["run.batch_size=40"]}, "stage 'post': run.batch_size 40 is larger than the 12 videos"),
        ({"target": ["schedule.warmup_epochs=9"]}, "stage 'target': schedule.warmup_epochs 9 is more"),
        ({"target": ["data.train=nowhere", "data.val=null"]}, "stage 'target': nowhere: no such file"),
        ({"target": ["clip.size=20"]}, "stage 'target': clip.size 20 is not a multiple of the patch 8"),
        ({"post": ["classes=7"]}, "stage 'post': the sources have together 3 classes but the recipe says"),
        ({"target": ["start_head.renames=none.csv"]}, "stage 'target': none.csv: cannot be read"),
    ],
)
def test_what_a_later_stage_lacks_is_said_before_the_first_step(
    changes: dict[str, list[str]], words: str, recipe: ProgressiveRecipe, tmp_path: Path
) -> None:
    for stage, fields in changes.items():
        recipe = changed(recipe, stage, *fields)
    notes = Notes()
    with pytest.raises(ValueError, match=re.escape(words)):
        run_stages(recipe, tmp_path / "run", notes)
    assert notes.facts == []
    assert not (tmp_path / "run").exists()


def test_a_test_list_that_does_not_fit_is_said_before_the_first_step(recipe: ProgressiveRecipe, tmp_path: Path) -> None:
    videos = Path(str(recipe.stages[2].filled.model_dump()["data"]["train"])).parent
    for evaluate, words in [
        ("nowhere.csv", "stage 'target': nowhere.csv: no such file"),
        (str(videos / "b.csv"), "class 'grey' is none of the classes learnt"),
    ]:
        with pytest.raises(ValueError, match=re.escape(words)):
            check_stages(with_stage(recipe, 2, evaluate=evaluate), tmp_path / "run")
    (videos / "numbers.csv").write_text("target/dark/0.mp4 0\ntarget/bright/0.mp4 1\n")
    numbered = with_stage(recipe, 1, evaluate=str(videos / "numbers.csv"))
    with pytest.raises(ValueError, match="plain numbers, which mean nothing among merged classes"):
        check_stages(numbered, tmp_path / "run")
    with pytest.raises(ValueError, match="evaluate: true tests on the validation videos, and none are given"):
        check_stages(with_stage(recipe, 1, evaluate=True), tmp_path / "run")


def with_stage(recipe: ProgressiveRecipe, place: int, **changes: object) -> ProgressiveRecipe:
    stages = list(recipe.stages)
    stages[place] = replace(stages[place], **changes)
    return replace(recipe, stages=tuple(stages))


def changed(recipe: ProgressiveRecipe, stage: str, *changes: str) -> ProgressiveRecipe:
    return filled(change_stages(recipe, [f"{stage}.{change}" for change in changes]))


def test_a_stage_that_sets_threads_does_not_set_those_of_the_next(recipe: ProgressiveRecipe, tmp_path: Path) -> None:
    """Sums of more threads round otherwise: a stage that goes on in a new process must find what it had."""
    before = torch.get_num_threads()
    seen: list[int] = []
    notes = Notes(act=lambda report: seen.append(torch.get_num_threads()))
    torch.set_num_threads(2)
    try:
        run_stages(changed(recipe, "target", "run.threads=null"), tmp_path / "run", notes)
    finally:
        torch.set_num_threads(before)
    assert seen == [1] * 12 + [2] * 2


@pytest.mark.parametrize("parallel", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_two_ranks_take_all_stages_together_and_stop_together(
    parallel: str, recipe: ProgressiveRecipe, tmp_path: Path
) -> None:
    shared = changed(recipe, "all", f"run.parallel={parallel}")

    def run(out: str, watch: Notes) -> list[int | None]:
        ended = run_ranks(2, lambda rank: void(run_stages(shared, tmp_path / out, watch)), tmp_path / "ranks")
        return [one.code for one in ended]

    assert run("whole", Notes()) == [0, 0]
    assert run("parts", Fatal(stage="2-post", step_number=3, signal=signal.SIGTERM)) == [143, 143]
    assert run("parts", Notes()) == [0, 0]
    assert_same(tmp_path / "whole", tmp_path / "parts")
    rows = (tmp_path / "parts/stages.csv").read_text().splitlines()
    assert len(rows) == 4
    assert ",6," in rows[3]  # rank 0 tested it, after all of them had parted
