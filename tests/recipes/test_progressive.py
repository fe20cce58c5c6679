"""Shipped recipes of several stages: filled in, read back, and the demo's lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from tubelet.data.synthetic.hybrid import write_hybrid
from tubelet.data.synthetic.scenes import MOTIONS
from tubelet.data.synthetic.videos import SyntheticPlan, make_dataset
from tubelet.recipe import SingleRun, change_stages, parse_any_recipe, resolved, to_yaml
from tubelet.recipes import RECIPES
from tubelet.recipes.progressive import PROGRESSIVE, demo_progressive, demo_with_and_without
from tubelet.runs.stages.run import check_stages


def find(name: str) -> SingleRun:
    return RECIPES[name]()


@pytest.mark.parametrize("name", PROGRESSIVE)
def test_each_is_read_back_equal_and_its_stages_fit(name: str) -> None:
    recipe = PROGRESSIVE[name]()
    assert recipe.name == name
    assert name not in RECIPES
    assert (PROGRESSIVE[name].__doc__ or "").strip()
    assert parse_any_recipe(to_yaml(recipe), name) == recipe
    whole = resolved(recipe, find)
    assert parse_any_recipe(to_yaml(whole), name) == whole


def test_the_demo_finds_its_data(tmp_path: Path) -> None:
    plan = SyntheticPlan(unlabelled=32, train=32, val=16, test=8, frames=4, size=16)
    lists = write_hybrid(make_dataset(tmp_path, plan, workers=0), plan)
    unlabelled = [set(path.read_text().split()) for path in (lists.unlabelled_a, lists.unlabelled_b)]
    assert [len(one) for one in unlabelled] == [16, 16]
    assert not unlabelled[0] & unlabelled[1]
    labels = [
        {row.split()[1] for row in path.read_text().splitlines()} for path in (lists.labelled_a, lists.labelled_b)
    ]
    names = list(MOTIONS)
    assert labels == [set(names[:5]), set(names[3:])]
    for recipe in (demo_progressive(tmp_path), demo_with_and_without(tmp_path)):
        changed = resolved(change_stages(recipe, ["all.run.batch_size=4", "all.data.workers=0"]), find)
        steps, _ = check_stages(changed, tmp_path / "run")
        assert [step.name for step in steps] == ["pretrain", "post", "target", "direct"][: len(steps)]
    direct = steps[-1].recipe
    assert direct.start == str(tmp_path / "run/1-pretrain")


def test_the_labels_of_the_demo_are_the_motions_of_the_videos(tmp_path: Path) -> None:
    plan = SyntheticPlan(unlabelled=8, train=16, val=8, test=8, frames=4, size=16)
    lists = write_hybrid(make_dataset(tmp_path, plan, workers=0), plan)
    rows = [row for path in (lists.labelled_a, lists.labelled_b) for row in path.read_text().splitlines()]
    kept = {
        path: int(label) for path, label in (row.split() for row in (tmp_path / "train.csv").read_text().splitlines())
    }
    assert {path: list(MOTIONS).index(name) for path, name in map(str.split, rows)} == kept
