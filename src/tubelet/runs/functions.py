"""`tubelet.pretrain`, `tubelet.finetune` and `tubelet.evaluate`: the commands as Python functions."""

from __future__ import annotations

from pathlib import Path

from tubelet.eval.evaluate import Evaluation
from tubelet.eval.evaluate import evaluate as _evaluate
from tubelet.recipe import FinetuneRecipe, PretrainRecipe, SingleRun
from tubelet.recipes.load import as_changes, load_recipe
from tubelet.runs.kinds import runner_of
from tubelet.train.records.watch import SilentWatch, Watch

PathLike = str | Path


def pretrain(
    recipe: PathLike | PretrainRecipe,
    *changes: str,
    data: PathLike | None = None,
    start: PathLike | None = None,
    out: PathLike | None = None,
    fresh: bool = False,
    watch: Watch | None = None,
) -> Path:
    """Pre-train an encoder on unlabelled videos; returns the run folder.

    `recipe` is the name of a shipped recipe, a YAML file or a recipe; `changes` are `field=value`, as on the command
    line. `data` is a folder or list of videos, `start` weights to start from, `out` the run folder (runs/RECIPE where
    not given), which is continued where it holds work, unless `fresh`. `watch` hears what the run says. ValueError in
    one line for whatever can be mended.

    run = tubelet.pretrain("videomae-ti-cpu-pretrain", "schedule.epochs=10", data="videos", out="runs/pre")
    """
    filled = load_recipe(recipe, [*changes, *as_changes({"data.videos": data, "start": start})], PretrainRecipe)
    return _run(filled, out, fresh=fresh, watch=watch)


def finetune(
    recipe: PathLike | FinetuneRecipe,
    *changes: str,
    train: PathLike | None = None,
    val: PathLike | None = None,
    start: PathLike | None = None,
    out: PathLike | None = None,
    fresh: bool = False,
    watch: Watch | None = None,
) -> Path:
    """Train a classifier on labelled videos; returns the run folder.

    `train` and `val` are lists of `path label`, or folders with a sub-folder a class; `start` is a pre-trained run or
    weights (the recipe's where not given). The rest as for `pretrain`.

    run = tubelet.finetune("videomae-ti-cpu-finetune", train="train.csv", start="runs/pre", out="runs/fine")
    """
    options = {"data.train": train, "data.val": val, "start": start}
    filled = load_recipe(recipe, [*changes, *as_changes(options)], FinetuneRecipe)
    return _run(filled, out, fresh=fresh, watch=watch)


def evaluate(
    run: PathLike,
    source: PathLike,
    *,
    clips: int | None = None,
    crops: int | None = None,
    allow_missing: bool = False,
    out: PathLike | None = None,
    watch: Watch | None = None,
) -> Evaluation:
    """Test a fine-tuned run on labelled videos; returns its numbers, and writes them and all predictions to files.

    `clips` in time by `crops` in space are the test views, as the recipe says where not given. Unreadable videos are a
    ValueError, or with `allow_missing` listed as missing. For classes the result has `top1`, `top5`, `confusion`, ...

    tubelet.evaluate("runs/fine", "test.csv").numbers["top1"]
    """
    return _evaluate(
        Path(run),
        Path(source),
        watch=watch or SilentWatch(),
        clips=clips,
        crops=crops,
        allow_missing=allow_missing,
        out=None if out is None else Path(out),
    )


def _run(recipe: SingleRun, out: PathLike | None, *, fresh: bool, watch: Watch | None) -> Path:
    folder = Path("runs") / recipe.name if out is None else Path(out)
    runner_of(recipe).run(recipe, folder, watch or SilentWatch(), fresh=fresh)
    return folder
