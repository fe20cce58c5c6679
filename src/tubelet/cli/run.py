"""`tubelet run`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tubelet.cli.terminal.common import Fresh, Out

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tubelet.recipe import AnyRecipe, ProgressiveRecipe, SingleRun
    from tubelet.runs.stages.folders import Step
    from tubelet.runs.stages.run import StageResult

Recipe = Annotated[str, typer.Argument(help="A YAML file, or the name of a recipe; of stages, or of one run.")]
Changes = Annotated[
    list[str] | None,
    typer.Argument(help="Changes: STAGE.field=value, all.field=value for every stage; field=value for one run."),
]


def run(
    recipe: Recipe,
    changes: Changes = None,
    out: Out = None,
    fresh: Fresh = False,
    redo: Annotated[
        str | None, typer.Option("--from", metavar="STAGE", help="Do this stage and what follows it again.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Look at every stage, train nothing.")] = False,
) -> None:
    """Train in stages: pre-train, post-pre-train on labels, fine-tune, each from the weights of one before.

    All stages are looked at before the first step. Stop it whenever you like; the same command goes on from there.

    Example: `tubelet run progressive.yaml --out runs/v2 all.run.device=cuda`
    """
    from tubelet.recipe import ProgressiveRecipe

    if fresh and redo is not None:
        raise ValueError("--fresh and --from exclude each other")
    filled = _load(recipe, changes or [])
    folder = out or Path("runs") / filled.name
    if isinstance(filled, ProgressiveRecipe):
        _run_stages(filled, folder, fresh=fresh, redo=redo, check=check)
    elif redo is not None or check:
        raise ValueError(f"{recipe}: one run, without stages; --from and --check are for recipes of stages")
    else:
        _run_one(filled, folder, fresh=fresh)


def _load(name: str, changes: list[str]) -> AnyRecipe:
    """The recipe, changed; of stages, with each stage's own recipe in it."""
    from tubelet.recipe import ProgressiveRecipe, change_stages, read_any_recipe, resolved
    from tubelet.recipes.load import load_any_recipe
    from tubelet.recipes.progressive import PROGRESSIVE

    path = Path(name)
    if name in PROGRESSIVE:
        whole = PROGRESSIVE[name]()
    elif path.is_file():
        found = read_any_recipe(path)
        if not isinstance(found, ProgressiveRecipe):
            return load_any_recipe(name, changes)
        whole = found
    else:
        return load_any_recipe(name, changes)
    return resolved(change_stages(whole, changes), _finder(path.parent))


def _finder(folder: Path) -> Callable[[str], SingleRun]:
    """Finds the recipe that a stage names: a shipped one, or a file beside the progressive one."""

    def find(name: str) -> SingleRun:
        from tubelet.recipes import RECIPES
        from tubelet.recipes.load import load_any_recipe

        return load_any_recipe(name if name in RECIPES or not _is_file(name) else str(folder / name), [])

    return find


def _is_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _run_stages(recipe: ProgressiveRecipe, out: Path, *, fresh: bool, redo: str | None, check: bool) -> None:
    from rich.console import Console

    from tubelet.cli.terminal.watch import training
    from tubelet.runs.stages.run import SUMMARY, check_stages, run_stages
    from tubelet.train.distributed.process_group import is_main

    if check:
        steps, first = check_stages(recipe, out, fresh=fresh, redo=redo)
        Console().print(_looked_at(steps, first))
        return
    with training(out) as watch:
        results = run_stages(recipe, out, watch, fresh=fresh, redo=redo)
    if not is_main():
        return
    Console().print(table(results))
    typer.echo(f"model: {results[-1].folder / 'model'}\nstages: {out / SUMMARY}")


def _run_one(recipe: SingleRun, out: Path, *, fresh: bool) -> None:
    from tubelet.cli.terminal.watch import training
    from tubelet.runs.kinds import runner_of
    from tubelet.train.distributed.process_group import is_main

    runner = runner_of(recipe)
    with training(out) as watch:
        model = runner.run(recipe, out, watch, fresh=fresh)
    if is_main():
        typer.echo(f"model: {model}\nlosses: {out / 'log.jsonl'}")
        typer.echo(f"next: {runner.next_step.replace('FOLDER', str(out))}")


def table(results: tuple[StageResult, ...]) -> RenderableType:
    """A row per stage."""
    from rich.table import Table

    drawn = Table("stage", "epochs", "steps", "last loss", "validation", "test top-1", "folder")
    for one in results:
        test = "" if one.top1 is None else f"{one.top1:.1%} of {one.tested}"
        val = "" if one.val is None else f"{one.val:.1%}"
        loss = "" if one.loss is None else f"{one.loss:.4f}"
        drawn.add_row(one.name, str(one.epochs), str(one.steps), loss, val, test, one.folder.name)
    return drawn


def _looked_at(steps: tuple[Step, ...], first: int) -> RenderableType:
    from rich.table import Table

    drawn = Table("stage", "kind", "starts from", "learns from", "epochs", "batch", "state")
    for place, step in enumerate(steps):
        state = "finished" if step.is_finished else "begun" if step.is_begun else "to do"
        if place >= first and state != "to do":
            state = f"{state}; to be removed and done again"
        start, teacher = step.recipe.start or "scratch", step.recipe.teacher or ""
        epochs, batch = str(step.recipe.schedule.epochs), str(step.recipe.run.batch_size)
        drawn.add_row(step.name, step.recipe.kind, start, teacher, epochs, batch, state)
    return drawn
