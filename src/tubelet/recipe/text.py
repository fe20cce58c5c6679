"""Recipes as text: printed as YAML, read back strictly, changed from the command line."""

from __future__ import annotations

from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from tubelet.disk.write import write_text
from tubelet.recipe.kinds import SINGLE_RUNS
from tubelet.recipe.progressive import ProgressiveRecipe
from tubelet.recipe.single import SingleRun
from tubelet.spec import Spec, did_you_mean, explain

AnyRecipe = SingleRun | ProgressiveRecipe
RecipeT = TypeVar("RecipeT", bound=AnyRecipe)
SpecT = TypeVar("SpecT", bound=Spec)


def to_yaml(recipe: AnyRecipe) -> str:
    """The whole recipe as YAML; `parse_any_recipe` reads it back equal."""
    return str(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, width=100))


def write_recipe(recipe: AnyRecipe, path: Path) -> None:
    """Write the recipe, whole or not at all."""
    write_text(path, to_yaml(recipe))


def read_recipe(path: Path) -> SingleRun:
    """Read the recipe file of one run; ValueError names the file and what is wrong in it."""
    return _of_one_run(read_any_recipe(path), str(path))


def read_any_recipe(path: Path) -> AnyRecipe:
    """Read a recipe file of any kind; ValueError names the file and what is wrong in it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as a recipe: {error}") from error
    return parse_any_recipe(text, str(path))


def parse_recipe(text: str, where: str) -> SingleRun:
    """Check the YAML text of the recipe of one run. `where` names it in errors."""
    return _of_one_run(parse_any_recipe(text, where), where)


def parse_any_recipe(text: str, where: str) -> AnyRecipe:
    """Check the YAML text of a recipe of any kind. `where` names it in errors."""
    try:
        fields = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{where}: not YAML: {_one_line(error)}") from error
    if not isinstance(fields, dict):
        known = " or ".join(f"'kind: {kind}'" for kind in SINGLE_RUNS)
        raise ValueError(f"{where}: a recipe is a YAML mapping with the field {known}")
    kinds: dict[str, type[AnyRecipe]] = {**SINGLE_RUNS, "progressive": ProgressiveRecipe}
    kind = fields.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise ValueError(f"{where}: kind is {kind!r}, choose from {', '.join(kinds)}")
    return _check(kinds[kind], fields, where)


def _of_one_run(recipe: AnyRecipe, where: str) -> SingleRun:
    if isinstance(recipe, ProgressiveRecipe):
        raise ValueError(f"{where}: a progressive recipe, of several runs; tubelet run takes it")
    return recipe


def override(recipe: RecipeT, changes: Sequence[str]) -> RecipeT:
    """The recipe with `field.field=value` changes, values read as YAML.

    A part tagged by `kind` may be named alone (`mask=random`): its other fields then take their defaults.
    ValueError for an unknown field (with the nearest known one) or a value that does not fit.
    """
    fields = recipe.model_dump(mode="json")
    given: set[str] = set()
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals:
            raise ValueError(f"{change!r}: write a change as field=value, such as run.batch_size=64")
        _set(fields, name.strip(), _value(text, change), given)
        given.add(name.strip())
    return _check(type(recipe), fields, recipe.name)


def _value(text: str, change: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{change!r}: the value is not YAML: {_one_line(error)}") from error
    if isinstance(value, str):  # YAML 1.1 reads 1e-3 as text
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _set(fields: dict[str, Any], name: str, value: Any, given: Set[str]) -> None:
    """`given` has the names of the changes before this one."""
    *path, last = name.split(".")
    here = fields
    for depth, part in enumerate(path, start=1):
        if part not in here and here.keys() == {"kind"}:  # a part just named by its kind: its fields are defaults yet
            here[part] = {}
        if part not in here:
            raise ValueError(f"unknown field {name!r}; {did_you_mean(part, here)}")
        if here[part] is None:  # an optional part that was absent: its fields are checked with the whole recipe
            here[part] = {}
        if isinstance(here[part], str) and ".".join(path[:depth]) in given:  # named by its kind, in another such part
            here[part] = {"kind": here[part]}
        here = here[part]
        if not isinstance(here, dict):
            raise ValueError(f"unknown field {name!r}: {part!r} has no fields")
    before = here.get(last)
    if isinstance(value, str) and isinstance(before, dict) and "kind" in before:
        value = {"kind": value}  # so that `mask.ratio=0.8` may follow `mask=random`
    here[last] = value  # the whole recipe is checked afterwards, unknown names too


def _check(model: type[SpecT], fields: dict[str, Any], where: str) -> SpecT:
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise ValueError(f"{where}: {explain(error, model)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
