"""`tubelet recipes`: list the recipes, or show one as YAML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import typer

from tubelet.cli.terminal.common import Changes, Recipe

if TYPE_CHECKING:
    from rich.console import RenderableType

WIDE: Final = 120
"""Columns of a terminal from which on each recipe's first line is shown too."""

recipes = typer.Typer(help="List the recipes, or show one as YAML.", no_args_is_help=True)


@recipes.command("list")
def list_recipes() -> None:
    """List the shipped recipes with their clips, model and schedule; `200 x 4` epochs take 4 clips of each video."""
    from rich.console import Console
    from rich.table import Table

    from tubelet.recipes import RECIPES

    console = Console()
    columns = ["recipe", "clip", "encoder", "epochs", "batch"]
    if console.width >= WIDE:
        columns.append("what it is")
    table = Table(*columns, box=None, pad_edge=False)
    for name, function in RECIPES.items():
        recipe = function()
        encoder = recipe.encoder
        cells = [
            name,
            f"{recipe.clip.frames}x{recipe.clip.size}",
            "" if encoder is None else f"{encoder.width}x{encoder.depth}/{encoder.cube.height}",
            str(recipe.schedule.epochs) + (f" x {recipe.data.views}" if recipe.data.views > 1 else ""),
            str(recipe.run.batch_size),
            (function.__doc__ or "").strip().split("\n")[0],
        ]
        table.add_row(*cells[: len(columns)])
    console.print(table)
    console.print(_stages_table())


def _stages_table() -> RenderableType:
    """Recipes of several stages, which `tubelet run` takes."""
    from rich.table import Table

    from tubelet.recipes.progressive import PROGRESSIVE

    table = Table("recipe of stages (tubelet run)", "stages", box=None, pad_edge=False)
    for name, function in PROGRESSIVE.items():
        table.add_row(name, ", ".join(stage.name for stage in function().stages))
    return table


@recipes.command("show")
def show_recipe(
    name: Recipe,
    changes: Changes = None,
) -> None:
    """Print a recipe as YAML; keep it in a file, change it, and train with the file.

    Example: `tubelet recipes show videomae-b-k400-800-pretrain > mine.yaml`
    """
    from tubelet.recipe import change_stages, to_yaml
    from tubelet.recipes.load import load_any_recipe
    from tubelet.recipes.progressive import PROGRESSIVE

    if name in PROGRESSIVE:
        typer.echo(to_yaml(change_stages(PROGRESSIVE[name](), changes or [])), nl=False)
        return
    recipe = load_any_recipe(name, changes or [])
    if recipe.data.views > 1:
        epochs, views = recipe.schedule.epochs, recipe.data.views
        typer.echo(f"# {epochs} epochs x {views} clips of each decoded video = {epochs * views} effective epochs")
    typer.echo(to_yaml(recipe), nl=False)
