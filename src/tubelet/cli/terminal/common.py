"""What several commands need."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeVar

import typer

if TYPE_CHECKING:
    from tubelet.recipe import FinetuneRecipe, PretrainRecipe

RecipeT = TypeVar("RecipeT", "PretrainRecipe", "FinetuneRecipe")

RECIPE_HELP: Final = "Name of a recipe (tubelet recipes list) or a YAML file."
CHANGES_HELP: Final = "Changes to the recipe: field=value, such as run.batch_size=64 mask=random."

Recipe = Annotated[str, typer.Argument(help=RECIPE_HELP)]
Changes = Annotated[list[str] | None, typer.Argument(help=CHANGES_HELP)]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Run folder; runs/RECIPE where not given.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start again in a run folder that holds work.")]
Frames = Annotated[int | None, typer.Option(min=1, help="Frames of a clip; the model's by default.")]
Size = Annotated[int | None, typer.Option(min=1, help="Pixels of a clip; the model's by default.")]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")]
Precision = Annotated[
    Literal["auto", "bf16", "fp32"], typer.Option(help="Numbers to compute in; auto: bf16 where it is quick.")
]
Pool = Annotated[
    Literal["mean", "change"], typer.Option(help="A clip's vector: the mean of its tokens, or their change over time.")
]
Inflated = Annotated[
    Literal["centre", "mean"] | None,
    typer.Option("--inflate", help="Frames that the kernel of an image model goes to: the middle one, or all alike."),
]
Root = Annotated[Path | None, typer.Option(help="Folder that the paths of a list start from.")]
MaxSkipped = Annotated[float, typer.Option(min=0, max=1, help="Largest share of unreadable videos.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where the run folder stands (this is the default).")]


def load_any_recipe(name: str, changes: list[str]) -> PretrainRecipe | FinetuneRecipe:
    """A shipped recipe by name, or one from a YAML file, with `field=value` changes. ValueError where one is wrong."""
    from tubelet.recipe import PretrainRecipe, override

    recipe = _named(name)
    if isinstance(recipe, PretrainRecipe):  # `override` gives back the kind that it gets, which mypy must see
        return override(recipe, changes)
    return override(recipe, changes)


def _named(name: str) -> PretrainRecipe | FinetuneRecipe:
    from tubelet.recipe import read_recipe
    from tubelet.recipes import RECIPES

    if name in RECIPES:
        return RECIPES[name]()
    if Path(name).is_file():
        return read_recipe(Path(name))
    if name.endswith((".yaml", ".yml")):
        raise ValueError(f"{name}: no such recipe file")
    near = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown recipe {name!r}{hint} (see: tubelet recipes list)")


def load_recipe(name: str, changes: list[str], kind: type[RecipeT]) -> RecipeT:
    """Like `load_any_recipe`, for a command that takes one kind of recipe."""
    from tubelet.recipe import override

    recipe = _named(name)
    if not isinstance(recipe, kind):  # before changes, whose fields it may not have
        wanted = kind.model_fields["kind"].default
        raise ValueError(
            f"{name} is a {recipe.kind} recipe, for tubelet {recipe.kind}; this command takes a {wanted} recipe"
        )
    return override(recipe, changes)


def given(changes: dict[str, str | int | None]) -> list[str]:
    """Options of a command as changes to a recipe: `field=value` for those that were given."""
    return [f"{name}={_yaml(value)}" for name, value in changes.items() if value is not None]


def _yaml(value: str | int) -> str:
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"
