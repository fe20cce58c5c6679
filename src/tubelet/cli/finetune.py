"""`tubelet finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tubelet.cli.terminal.common import Changes, Fresh, Inflated, Out, Recipe, Resume


def finetune(
    recipe: Recipe,
    changes: Changes = None,
    train: Annotated[
        str | None, typer.Option(help="Labelled videos: a list of 'path label', or a folder with a sub-folder a class.")
    ] = None,
    val: Annotated[str | None, typer.Option(help="Labelled videos to look at after each epoch.")] = None,
    root: Annotated[str | None, typer.Option(help="Folder that the paths of the lists start from.")] = None,
    class_names: Annotated[
        str | None, typer.Option("--class-names", help="File with one class name a line, in the order of the labels.")
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="Pre-trained run, checkpoint or weights; 'none' trains from scratch.")
    ] = None,
    inflate: Inflated = None,
    teacher: Annotated[
        str | None, typer.Option(help="Learn from this classifier instead of the labels: a run, a file, a folder.")
    ] = None,
    out: Out = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of weights, order, clips, mixing.")] = None,
    fresh: Fresh = False,
    resume: Resume = False,
) -> None:
    """Train a classifier on labelled videos, from pre-trained weights or from scratch, or from a larger classifier.

    The final weights are kept, not those of the best epoch. A run folder that holds work is continued.

    Example: `tubelet finetune videomae-s-small-finetune --start runs/pre --train train.csv --out runs/fine`
    """
    from tubelet.cli.terminal.watch import training
    from tubelet.recipe import FinetuneRecipe
    from tubelet.recipes.load import as_changes, load_recipe
    from tubelet.runs.finetune import FINETUNE
    from tubelet.train.distributed.process_group import is_main

    if fresh and resume:
        raise ValueError("--fresh and --resume exclude each other")
    options = as_changes(
        {"data.train": train, "data.val": val, "data.root": root, "data.class_names": class_names, "seed": seed}
    )
    options += ["start=null"] if start == "none" else as_changes({"start": start})
    options += as_changes({"distill.teacher": teacher, "inflate": inflate})
    filled = load_recipe(recipe, [*(changes or []), *options], FinetuneRecipe)
    folder = out or Path("runs") / filled.name
    with training(folder) as watch:
        model = FINETUNE.run(filled, folder, watch, fresh=fresh)
    if not is_main():
        return
    typer.echo(f"model: {model}\nlosses: {folder / 'log.jsonl'}")
    typer.echo(f"next: {FINETUNE.next_step.replace('FOLDER', str(folder))}")
