"""A kind of run of one recipe, one file and its lines in two tables: a stage and a run of its own that goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file
from toy_kind import COLOUR, ColourRecipe, learn_colour
from toy_run import Notes, killer, log_lines, records
from toy_stages import material, pretrain_recipe

from tubelet.cli import main
from tubelet.recipe import (
    SINGLE_RUNS,
    Data,
    ProgressiveRecipe,
    Run,
    SingleRun,
    Stage,
    parse_any_recipe,
    parse_recipe,
    read_recipe,
    resolved,
    to_yaml,
)
from tubelet.recipes import RECIPES
from tubelet.runs.kinds import RUNS
from tubelet.runs.stages.run import check_stages, run_stages
from tubelet.spec import replace
from tubelet.train.distributed.signals import Interrupted
from tubelet.weights.read import read_model


@pytest.fixture(autouse=True)
def _its_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SINGLE_RUNS, "colour", ColourRecipe)
    monkeypatch.setitem(RUNS, "colour", COLOUR)


def recipe_on(folder: Path) -> ColourRecipe:
    data = Data(videos=str(folder / "one.txt"), workers=0, sampler="segments")
    run = Run(batch_size=2, precision="fp32", device="cpu", save_every=2, log_every=1, threads=1)
    return ColourRecipe(name="toy-colour", data=data, run=run)


def stages_on(folder: Path) -> ProgressiveRecipe:
    stages = (
        Stage(name="colour", recipe=recipe_on(folder)),
        Stage(name="pretrain", recipe=pretrain_recipe(folder), start=None),
    )
    return resolved(ProgressiveRecipe(name="toy", stages=stages), _none)


def _none(name: str) -> SingleRun:
    raise ValueError(f"no recipe {name}")


def command(*words: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code in (0, None)


def test_it_is_a_stage_that_is_kept_and_goes_on(tmp_path: Path) -> None:
    recipe = stages_on(material(tmp_path))
    assert parse_any_recipe(to_yaml(recipe), "recipe") == recipe
    with pytest.raises(Interrupted):
        run_stages(recipe, tmp_path / "out", Notes(act=killer(3, 15)))
    notes = Notes()
    colour, pretrain = run_stages(recipe, tmp_path / "out", notes)
    assert (colour.kind, colour.steps, pretrain.kind) == ("colour", 9, "pretrain")
    assert any("stage 1/2, colour: learning a colour" in line for line in notes.lines)
    learn_colour(recipe_on(tmp_path), tmp_path / "alone", Notes())
    assert log_lines(tmp_path / "out/1-colour") == log_lines(tmp_path / "alone")
    steps, first = check_stages(recipe, tmp_path / "out")
    assert first == 2
    assert all(step.is_finished for step in steps)


def test_commands_run_show_and_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_on(material(tmp_path))
    (tmp_path / "colour.yaml").write_text(to_yaml(recipe))
    command("run", str(tmp_path / "colour.yaml"), "--out", str(tmp_path / "out"))
    assert records(tmp_path / "out")[-1]["loss"] < records(tmp_path / "out")[0]["loss"]
    assert load_file(tmp_path / "out/model/model.safetensors").keys() == {"colour"}
    assert read_recipe(tmp_path / "out/model/recipe.yaml") == recipe
    monkeypatch.setitem(RECIPES, "toy-colour", lambda: recipe)
    command("recipes", "list")
    command("recipes", "show", "toy-colour", "schedule.epochs=7")
    assert "epochs: 7" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["plan", "toy-colour"])
    assert "a colour run takes cannot be planned; pretrain and finetune runs can" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no encoder among its tensors"):
        read_model(tmp_path / "out")


def test_what_cannot_be_is_refused_and_kinds_are_named(tmp_path: Path) -> None:
    folder = material(tmp_path)
    start = Stage(name="pretrain", recipe=pretrain_recipe(folder))
    with pytest.raises(ValueError, match="stage 'pretrain' pre-trains and cannot start from 'colour', a colour"):
        resolved(ProgressiveRecipe(name="x", stages=(Stage(name="colour", recipe=recipe_on(folder)), start)), _none)
    with pytest.raises(ValueError, match="stage 'colour' learns a colour and cannot start from 'pretrain'"):
        resolved(ProgressiveRecipe(name="x", stages=(start, Stage(name="colour", recipe=recipe_on(folder)))), _none)
    tested = Stage(name="colour", recipe=recipe_on(folder), evaluate=True)
    with pytest.raises(ValueError, match="evaluate is for stages with classes, and this one learns a colour"):
        resolved(ProgressiveRecipe(name="x", stages=(tested,)), _none)
    with pytest.raises(ValueError, match="kind is 'paint', choose from pretrain, finetune, colour, progressive"):
        parse_recipe("kind: paint", "here")
    with pytest.raises(ValueError, match="a mapping with kind: pretrain or finetune or colour"):
        parse_any_recipe("{kind: progressive, name: x, stages: [{name: a, recipe: {kind: paint}}]}", "here")


def test_fresh_removes_nothing_before_all_is_checked(tmp_path: Path) -> None:
    recipe = recipe_on(material(tmp_path))
    model = learn_colour(recipe, tmp_path / "out", Notes())
    for wrong, words in (
        (replace(recipe, run=replace(recipe.run, batch_size=100)), "run.batch_size 100 is larger"),
        (replace(recipe, schedule=replace(recipe.schedule, warmup_epochs=9)), "warmup_epochs 9"),
        (replace(recipe, data=replace(recipe.data, videos="nowhere")), "nowhere: no such file"),
    ):
        with pytest.raises(ValueError, match=words):
            learn_colour(wrong, tmp_path / "out", Notes(), fresh=True)
        assert (model / "model.safetensors").is_file()


def test_every_kind_is_in_both_tables_and_whole() -> None:
    assert RUNS.keys() == SINGLE_RUNS.keys()
    for kind, runner in RUNS.items():
        assert SINGLE_RUNS[kind] is runner.recipe
        assert runner.recipe.model_fields["kind"].default == kind
        needed = {"name", "seed", "clip", "data", "optim", "schedule", "run", "start"}
        assert needed <= runner.recipe.model_fields.keys()
        assert (runner.test is not None) == runner.recipe.can_be_tested
        assert runner.recipe.does
        assert runner.recipe.gives
