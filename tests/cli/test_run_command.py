"""`tubelet run`: stages from a file, looked at, trained, shown; one line for a mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toy_stages import material, post_recipe, pretrain_recipe, target_recipe

from tubelet.cli import main
from tubelet.data.synthetic.videos import SyntheticPlan
from tubelet.recipe import ProgressiveRecipe, parse_any_recipe, write_recipe

QUICK = "all.schedule.epochs=1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """recipes/stages.yaml names files beside it, and has one stage's recipe in it."""
    here = tmp_path_factory.mktemp("here")
    videos = material(here / "videos")
    (here / "recipes").mkdir()
    write_recipe(pretrain_recipe(videos), here / "recipes/pre.yaml")
    write_recipe(target_recipe(videos), here / "recipes/target.yaml")
    post = json.dumps(post_recipe(videos).model_dump(mode="json"))
    (here / "recipes/stages.yaml").write_text(f"""
kind: progressive
name: toy
stages:
  - {{name: pretrain, recipe: pre.yaml}}
  - {{name: post, recipe: {post}}}
  - {{name: target, recipe: target.yaml, evaluate: true, changes: [optim.lr=0.05]}}
""")
    return here


def run(*arguments: str | Path) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["run", *map(str, arguments)])
    assert not stop.value.code


def mistake(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["run", *map(str, arguments)])
    assert stop.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_stages_are_looked_at_trained_shown_and_left_alone_once_done(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    run(folder / "recipes/stages.yaml", QUICK, "--out", out, "--check")
    assert capsys.readouterr().out.count("to do") == 3
    assert not out.exists()
    run(folder / "recipes/stages.yaml", QUICK, "--out", out)
    shown = capsys.readouterr()
    assert "stage 3/3, target: training on labels" in shown.err
    assert "of 6" in shown.out
    assert f"model: {out}/3-target/model" in shown.out
    run(folder / "recipes/stages.yaml", QUICK, "--out", out)
    assert capsys.readouterr().err.count("finished before") == 3
    line = mistake(capsys, folder / "recipes/stages.yaml", QUICK, "post.seed=4", "--out", out)
    assert "2-post: this stage was finished with another recipe: seed (0 -> 4); redo it" in line
    run(folder / "recipes/stages.yaml", QUICK, "target.seed=4", "--out", out, "--from", "target")
    assert "removed the work of 3-target" in capsys.readouterr().err
    run(folder / "recipes/stages.yaml", QUICK, "target.seed=5", "--out", out, "--check", "--from", "target")
    looked = " ".join(capsys.readouterr().out.split())
    assert (looked.count("finished"), looked.count("to be")) == (3, 1)
    line = mistake(capsys, folder / "recipes/stages.yaml", QUICK, "--out", out, "--check", "--from", "tagret")
    assert "did you mean 'target'?" in line
    run(out / "recipe.yaml", "--out", out)
    assert capsys.readouterr().err.count("finished before") == 3


def test_one_run_is_a_run_too(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(folder / "recipes/pre.yaml", "schedule.epochs=1", "--out", tmp_path / "pre")
    assert f"model: {tmp_path}/pre/model" in capsys.readouterr().out
    run(
        folder / "recipes/target.yaml",
        *("schedule.epochs=1", "start_head=fresh", f"start={tmp_path}/pre", "--out", tmp_path / "fine"),
    )
    assert (tmp_path / "fine/model/classes.txt").is_file()
    line = mistake(capsys, folder / "recipes/target.yaml", f"start={tmp_path}/pre", "--out", tmp_path / "other")
    assert "has no head to start from" in line
    assert "nothing to start from" in mistake(capsys, folder / "recipes/target.yaml", "--out", tmp_path / "other")


def test_mistakes_are_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stages = folder / "recipes/stages.yaml"
    assert "none.yaml: no such recipe file" in mistake(capsys, folder / "none.yaml")
    assert "did you mean 'demo-pretrain'?" in mistake(capsys, "demo-pretrian")
    assert "exclude each other" in mistake(capsys, stages, "--fresh", "--from", "post")
    assert "did you mean 'post'?" in mistake(capsys, stages, "--from", "pst", "--out", tmp_path / "run")
    assert "one run, without stages" in mistake(capsys, folder / "recipes/pre.yaml", "--check")
    assert "no stage is called 'first'" in mistake(capsys, stages, "first.seed=1")
    (folder / "recipes/lost.yaml").write_text(
        "kind: progressive\nname: x\nstages: [{name: a, recipe: gone.yaml}, {name: b, recipe: demo-finetune}]\n"
    )
    line = mistake(capsys, folder / "recipes/lost.yaml")
    assert f"stage 'a': {folder}/recipes/gone.yaml: no such recipe file" in line
    line = mistake(capsys, "demo-progressive", "--out", tmp_path / "run")
    assert line == "tubelet: stage 'pretrain': demo/data/unlabelled_a.txt: no such file or folder"
    assert not (tmp_path / "run").exists()


def test_other_commands_send_stages_here(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["pretrain", str(folder / "recipes/stages.yaml")])
    assert "tubelet run takes it" in capsys.readouterr().err


def test_recipes_of_stages_are_listed_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["list"], ["show", "demo-progressive", "post.seed=4"]):
        with pytest.raises(SystemExit) as stop:
            main(["recipes", *words])
        assert not stop.value.code
        text = capsys.readouterr().out
        assert "demo-progressive" in text
    shown = parse_any_recipe(text, "shown")
    assert isinstance(shown, ProgressiveRecipe)
    assert shown.stages[1].changes == ("seed=4",)


def test_the_demo_makes_the_data_of_its_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = SyntheticPlan(unlabelled=64, train=64, val=16, test=8, frames=4, size=16)
    monkeypatch.setattr("tubelet.recipes.demo.demo_videos", lambda: plan)
    monkeypatch.setattr("tubelet.doctor.machine.cores", lambda: 0)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["demo", "--data-only"])
    assert not stop.value.code
    assert "next: tubelet run demo-progressive" in capsys.readouterr().out
    run("demo-progressive", "--check")
    run("demo-with-and-without", "--check")
    assert capsys.readouterr().out.count("to do") == 7
