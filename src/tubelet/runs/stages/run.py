"""Progressive training (VideoMAE V2, arXiv:2303.16727, section 3.4): stages, each from the weights of one before."""

from __future__ import annotations

import gc
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from tubelet.disk.layout import EVALUATION_FOLDER, RECIPE_FILE
from tubelet.disk.lock import only_run_in
from tubelet.disk.tables import write_csv
from tubelet.disk.write import open_folder
from tubelet.recipe import ProgressiveRecipe, write_recipe
from tubelet.runs.kinds import runner_of
from tubelet.runs.stages.checks import check_steps
from tubelet.runs.stages.folders import Step, check_kept, clear, first_to_redo, steps_of, write_seal
from tubelet.train.distributed.process_group import is_main, joined, on_main, place
from tubelet.train.distributed.signals import stops_at_once
from tubelet.train.records.log import LOG, read_log
from tubelet.train.records.watch import SilentWatch, Watch

TEST: Final = "stage"
"""The folder of a stage's own test, among its other evaluations."""
SUMMARY: Final = "stages.csv"
_COLUMNS: Final = ("stage", "kind", "epochs", "steps", "loss", "val_accuracy", "test_top1", "test_videos", "folder")


@dataclass(frozen=True)
class StageResult:
    """What a finished stage came to. `loss` is the mean of its last epoch.

    `val` is the accuracy (or what else its task measures) after the last epoch, `top1` that of the stage's own test;
    ratios, None where not measured.
    """

    name: str
    kind: str
    epochs: int
    steps: int
    loss: float | None
    val: float | None
    top1: float | None
    tested: int | None
    folder: Path


def run_stages(
    recipe: ProgressiveRecipe, out: Path, watch: Watch, *, fresh: bool = False, redo: str | None = None
) -> tuple[StageResult, ...]:
    """Run the stages of a recipe that `resolved` gave, in folders of `out`; finished ones stay as they are.

    What was stopped goes on where it was, bit for bit. `fresh` starts all over, `redo` from the stage of that name on.
    Everything is looked at first: ValueError in one line for what would fail later, and for work of another recipe;
    the rest as `pretrain` and `finetune`. A stage's test follows it; under torchrun, where all ranks call this, rank 0
    tests alone, at the end. Writes recipe.yaml and stages.csv to `out`.
    """
    alone = place().world == 1
    shown = watch if is_main() else SilentWatch()
    with stops_at_once() if alone else nullcontext():
        with joined(recipe.stages[0].filled.run, watch.say):
            found, first = check_stages(recipe, out, fresh=fresh, redo=redo)
            on_main(lambda: open_folder(out))
            with _held(out):
                on_main(lambda: _begin(recipe, out, found[first:], shown))
                steps = steps_of(recipe, out)  # what was removed starts from where the others are now
                _train_all(steps, shown, tests=alone)
        if is_main():
            for step in steps:
                _test(step, shown)
            return _summary(steps, out)
    return ()


def check_stages(
    recipe: ProgressiveRecipe, out: Path, *, fresh: bool = False, redo: str | None = None
) -> tuple[tuple[Step, ...], int]:
    """The look that `run_stages` takes before it begins, alone; nothing is written.

    Returns the stages, and the place from which on work would be removed.
    """
    steps = steps_of(recipe, out)
    first = first_to_redo(steps, fresh=fresh, redo=redo)
    check_kept(steps[:first])
    check_steps(steps, redone=first)
    return steps, first


def _held(out: Path) -> AbstractContextManager[None]:
    return only_run_in(out) if is_main() else nullcontext()


def _begin(recipe: ProgressiveRecipe, out: Path, redone: Sequence[Step], watch: Watch) -> None:
    again = [step.folder.name for step in redone if step.is_begun or step.is_finished]
    if again:
        watch.say(f"removed the work of {', '.join(again)}; to go on after a stop, leave --from and --fresh out")
    clear(redone)
    write_recipe(recipe, out / RECIPE_FILE)


def _train_all(steps: Sequence[Step], watch: Watch, *, tests: bool) -> None:
    threads = torch.get_num_threads()
    todo = json.loads(on_main(lambda: json.dumps([not step.is_finished for step in steps])))
    for step, is_open in zip(steps, todo, strict=True):
        head = f"stage {step.number}/{len(steps)}, {step.name}: "
        if not is_open:
            watch.say(f"{head}finished before, in {step.folder}")
            continue
        runner = runner_of(step.recipe)
        sources = "".join(f", {word} {one}" for word, one in (("from", step.start), ("taught by", step.teacher)) if one)
        watch.say(f"{head}{runner.label} in {step.folder}{sources}")
        torch.set_num_threads(threads)  # a stage that sets them is not to change the next one
        on_main(lambda step=step: write_seal(step))  # type: ignore[misc]
        runner.run(step.recipe, step.folder, watch)
        _let_go()
        if tests:
            _test(step, watch)


def _let_go() -> None:
    """Give back the memory of a stage that ended."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _test(step: Step, watch: Watch) -> None:
    """The test that a stage asks for, unless it was done."""
    test = runner_of(step.recipe).test
    if step.evaluate is False or test is None:
        return
    source, done = test.source(step.recipe, step.evaluate), _metrics(step)
    asked = (str(source), *test.views(step.recipe))
    if done is not None and (done["source"], done["clips"], done["crops"]) == asked:
        return
    watch.say(f"test of {step.name} on {source}")
    test.run(step.folder, test.videos(step.recipe, step.evaluate), _test_folder(step), watch)


def _test_folder(step: Step) -> Path:
    return step.folder / EVALUATION_FOLDER / TEST


def _metrics(step: Step) -> dict[str, Any] | None:
    """What the stage's test found; None where it was not done, or not to its end."""
    path = _test_folder(step) / "metrics.json"
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _summary(steps: Sequence[Step], out: Path) -> tuple[StageResult, ...]:
    results = tuple(_result(step) for step in steps)
    rows = [
        (one.name, one.kind, one.epochs, one.steps, one.loss, one.val, one.top1, one.tested, one.folder.name)
        for one in results
    ]
    write_csv(out / SUMMARY, _COLUMNS, rows)
    return results


def _result(step: Step) -> StageResult:
    records = read_log(step.folder / LOG)
    trained = [record for record in records if "evaluation" not in record]
    epoch = max((record["epoch"] for record in trained), default=0)
    losses = [record["loss"] for record in trained if record["epoch"] == epoch and "loss" in record]
    looks = [next(iter(record["evaluation"].values())) for record in records if "evaluation" in record]
    test = None if step.evaluate is False else _metrics(step)
    return StageResult(
        name=step.name,
        kind=step.recipe.kind,
        epochs=step.recipe.schedule.epochs,
        steps=max((record["step"] for record in trained), default=0),
        loss=sum(losses) / len(losses) if losses else None,
        val=looks[-1] if looks else None,
        top1=None if test is None else test.get("top1"),
        tested=None if test is None else test["videos"],
        folder=step.folder,
    )
