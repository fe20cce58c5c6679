"""A task of one file and one line in TASKS trains, goes on after a stop, shares ranks, is tested and is planned."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ranks import run_ranks
from toy_labelled import LEVELS, toy_recipe, write_video
from toy_run import Notes, killer, log_lines, records
from toy_task import Brightness

from tubelet.cli import main
from tubelet.eval.evaluate import evaluate
from tubelet.methods.distillation import Distill
from tubelet.methods.tasks import TASKS, Task
from tubelet.plan.plan import Question
from tubelet.recipe import FinetuneRecipe, LabelledData, Stage, parse_recipe, to_yaml
from tubelet.recipe.progressive import ProgressiveRecipe
from tubelet.recipe.stages import resolved
from tubelet.runs.finetune import finetune
from tubelet.runs.kinds import plan_run
from tubelet.runs.stages.run import run_stages
from tubelet.spec import replace
from tubelet.train.distributed.signals import Interrupted
from tubelet.video.augment.augment import Augment, CentreCrop, Placement
from tubelet.video.lists.manifest import read_manifest
from tubelet.video.sample import Segments


@pytest.fixture(autouse=True)
def _one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "brightness", Brightness)


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """Eight videos and how bright they are, in 0..1."""
    lines = []
    for number in range(8):
        for name, level in LEVELS.items():
            write_video(tmp_path / "videos" / f"{name}{number}.mp4", level, seed=number)
            lines.append(f"videos/{name}{number}.mp4 {level / 255:.3f}:0.1\n")
    (tmp_path / "train.csv").write_text("".join(lines))
    (tmp_path / "val.csv").write_text("".join(lines[:6]))
    return tmp_path


def recipe_on(folder: Path, **changes: object) -> FinetuneRecipe:
    data = LabelledData(
        train=str(folder / "train.csv"), val=str(folder / "val.csv"), sampler=Segments(), workers=0, views=2
    )
    recipe = toy_recipe(data=data, task="brightness", ema=0.5, **changes)
    return replace(recipe, optim=replace(recipe.optim, lr=0.05), schedule=replace(recipe.schedule, epochs=12))


def test_it_learns_and_is_tested_and_every_command_knows_it(
    listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_on(listed)
    assert parse_recipe(to_yaml(recipe), "recipe") == recipe
    model = finetune(recipe, tmp_path / "run", Notes())
    assert not (model / "classes.txt").exists()
    looks = [record["evaluation"] for record in records(tmp_path / "run") if "evaluation" in record]
    assert set(looks[-1]) == {"mean_absolute_error", "best_mean_absolute_error"}
    assert looks[-1]["best_mean_absolute_error"] == min(look["mean_absolute_error"] for look in looks)
    assert looks[-1]["mean_absolute_error"] < 0.5 * looks[0]["mean_absolute_error"]
    result = evaluate(tmp_path / "run", listed / "val.csv", watch=Notes(), out=tmp_path / "out")
    assert result.numbers["mean_absolute_error"] < 0.15
    facts = json.loads((tmp_path / "out/metrics.json").read_text())
    assert facts["mean_absolute_error"] == result.numbers["mean_absolute_error"]
    with (tmp_path / "out/predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "missing", "label_1", "label_2", "predicted_1", "predicted_2"]
    errors = [np.mean([abs(float(row[f"label_{n}"]) - float(row[f"predicted_{n}"])) for n in (1, 2)]) for row in rows]
    assert np.mean(errors) == pytest.approx(result.numbers["mean_absolute_error"], abs=1e-4)
    for command in (["evaluate", str(tmp_path / "run"), str(listed / "val.csv")], ["weights", "inspect", str(model)]):
        with pytest.raises(SystemExit) as stop:
            main(command)
        assert stop.value.code in (0, None)
    assert "mean_absolute_error" in capsys.readouterr().out


def test_its_labels_follow_the_flip_and_those_of_classes_stay(listed: Path) -> None:
    task = Brightness()
    video = task.labelled(read_manifest(listed / "train.csv", labelled=True), ())[0]
    frames = np.zeros((2, 20, 30, 3), dtype=np.uint8)
    for flip, slope in ((0.0, 0.1), (1.0, -0.1)):
        augment = Augment(crop=CentreCrop(), flip=flip)
        _, placement = augment.placed(frames, 10, np.random.default_rng(0))
        assert placement == Placement(0, 5, 20, 20, (20, 30), flipped=flip == 1.0)
        assert task.label(video, [placement])[0].tolist() == pytest.approx([190 / 255, slope], abs=1e-3)


def test_a_stopped_run_goes_on_bit_for_bit(listed: Path, tmp_path: Path) -> None:
    recipe = recipe_on(listed)
    finetune(recipe, tmp_path / "whole", Notes())
    with pytest.raises(Interrupted):
        finetune(recipe, tmp_path / "parts", Notes(act=killer(5, 15)))
    finetune(recipe, tmp_path / "parts", Notes())
    assert log_lines(tmp_path / "parts") == log_lines(tmp_path / "whole")


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_ranks_learn_and_look_the_same(listed: Path, tmp_path: Path, parallel: str) -> None:
    recipe = recipe_on(listed)
    recipe = replace(recipe, schedule=replace(recipe.schedule, epochs=3))
    finetune(recipe, tmp_path / "one", Notes())
    shared = replace(recipe, run=replace(recipe.run, parallel=parallel))

    def work(rank: int) -> None:
        del rank
        finetune(shared, tmp_path / "two", Notes())

    assert [one.code for one in run_ranks(2, work, tmp_path / "ranks")] == [0, 0]
    for one, two in zip(records(tmp_path / "one"), records(tmp_path / "two"), strict=True):
        for name, value in one.items():
            assert two[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name


def test_it_is_a_stage_and_is_planned(listed: Path, tmp_path: Path) -> None:
    recipe = recipe_on(listed)
    recipe = replace(recipe, schedule=replace(recipe.schedule, epochs=2))
    plan = plan_run(recipe, Question(device="H100", steps=0))
    assert plan.parameters["head"] == 2 * 32 + 2 * 32 + 2
    stages = ProgressiveRecipe(name="toy", stages=(Stage(name="only", recipe=recipe, evaluate=True),))
    (result,) = run_stages(resolved(stages, lambda name: recipe), tmp_path / "out", Notes())
    assert result.tested == 6
    assert result.top1 is None


def test_what_needs_classes_is_refused_and_an_unknown_task_names_the_known_ones(listed: Path) -> None:
    for field, value in (("distill", Distill()), ("start_head", "same_classes"), ("classes", 3)):
        with pytest.raises(ValueError, match=r"is for labels that are classes, and the task brightness has none"):
            recipe_on(listed, **{field: value})
    with pytest.raises(ValueError, match="unknown task 'boxes'; choose from classes, brightness"):
        parse_recipe("{kind: finetune, name: x, task: boxes}", "here")
    with pytest.raises(ValueError, match="unknown field 'size'; choose from kind, scale"):
        parse_recipe("{kind: finetune, name: x, task: {kind: brightness, size: 2}}", "here")
    (listed / "train.csv").write_text("videos/dark0.mp4 dim\nvideos/dark1.mp4 0.5\n")
    with pytest.raises(ValueError, match=r"train\.csv, line 1: 'dim' is no brightness"):
        finetune(recipe_on(listed), listed / "run", Notes())


@pytest.mark.parametrize("kind", TASKS)
def test_every_task_is_whole(kind: str) -> None:
    task: Task = TASKS[kind].model_validate({"kind": kind})
    assert type(task).metric
    outputs = task.outputs(3)
    assert outputs is not None
    labels = task.made_up(1, clips=4, outputs=outputs)
    network: Any = torch.nn.Linear(5, outputs)
    output = task.learn(network, torch.rand(4, 5), labels, None)
    assert torch.isfinite(output.loss)
    predictions = task.predictions(torch.rand(4, outputs))
    assert task.total(predictions.numpy(), labels.numpy()) >= 0
    assert task.made_up(0, clips=2, outputs=outputs).shape[1:] == labels.shape[1:]
