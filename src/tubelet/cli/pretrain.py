"""`tubelet pretrain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from tubelet.cli.terminal.common import Changes, Fresh, Inflated, Out, Recipe, Resume


def pretrain(
    recipe: Recipe,
    changes: Changes = None,
    data: Annotated[str | None, typer.Option(help="Folder of videos, or a list of them (txt, csv, jsonl).")] = None,
    root: Annotated[str | None, typer.Option(help="Folder that the paths of a list start from.")] = None,
    out: Out = None,
    start: Annotated[str | None, typer.Option(help="Run or weights to start from.")] = None,
    start_part: Annotated[
        Literal["whole", "encoder"] | None,
        typer.Option(help="What to take of it: all, or the encoder alone, of any kind of model."),
    ] = None,
    inflate: Inflated = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of weights, order, clips, masks.")] = None,
    fresh: Fresh = False,
    resume: Resume = False,
) -> None:
    """Pre-train an encoder on unlabelled videos.

    A run folder that holds work is continued, bit for bit; stop it with Ctrl-C whenever you like.

    Example: `tubelet pretrain videomae-b-k400-800-pretrain --data videos/ --out runs/pre run.batch_size=64`
    """
    from tubelet.cli.terminal.watch import training
    from tubelet.recipe import PretrainRecipe
    from tubelet.recipes.load import as_changes, load_recipe
    from tubelet.runs.pretrain import PRETRAIN
    from tubelet.train.distributed.process_group import is_main

    if fresh and resume:
        raise ValueError("--fresh and --resume exclude each other")
    options = as_changes({"data.videos": data, "data.root": root, "start": start, "seed": seed})
    options += as_changes({"start_part": start_part, "inflate": inflate})
    filled = load_recipe(recipe, [*(changes or []), *options], PretrainRecipe)
    folder = out or Path("runs") / filled.name
    with training(folder) as watch:
        model = PRETRAIN.run(filled, folder, watch, fresh=fresh)
    if not is_main():
        return
    typer.echo(f"model: {model}\nlosses: {folder / 'log.jsonl'}")
    typer.echo(f"next: {PRETRAIN.next_step.replace('FOLDER', str(folder))}")
