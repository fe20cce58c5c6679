"""A recipe as people give it: the name of a shipped one, a YAML file, or the recipe itself, with changes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from tubelet.recipe import SingleRun, override, read_recipe
from tubelet.recipes import RECIPES

RecipeT = TypeVar("RecipeT", bound=SingleRun)


def load_any_recipe(given: str | Path | SingleRun, changes: Sequence[str] = ()) -> SingleRun:
    """The recipe of a single run of whatever kind, with `field=value` changes. ValueError where one is wrong."""
    return override(_found(given), changes)


def load_recipe(given: str | Path | SingleRun, changes: Sequence[str], kind: type[RecipeT]) -> RecipeT:
    """The same, for a command that takes one kind of recipe."""
    recipe = _found(given)
    if not isinstance(recipe, kind):  # before changes, whose fields it may not have
        name, wanted = given if isinstance(given, str) else recipe.name, kind.model_fields["kind"].default
        raise ValueError(
            f"{name} is a {recipe.kind} recipe, for tubelet {recipe.kind}; this command takes a {wanted} recipe"
        )
    return override(recipe, changes)


def as_changes(options: Mapping[str, str | int | Path | None]) -> list[str]:
    """Options as changes to a recipe: `field=value` for those that are given."""
    return [f"{name}={_yaml(value)}" for name, value in options.items() if value is not None]


def _yaml(value: str | int | Path) -> str:
    return str(value) if isinstance(value, int) else "'" + str(value).replace("'", "''") + "'"


def _found(given: str | Path | SingleRun) -> SingleRun:
    if isinstance(given, SingleRun):
        return given
    name = str(given)
    if name in RECIPES:
        return RECIPES[name]()
    if Path(name).is_file():
        return read_recipe(Path(name))
    if name.endswith((".yaml", ".yml")):
        raise ValueError(f"{name}: no such recipe file")
    near = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown recipe {name!r}{hint} (see: tubelet recipes list)")
