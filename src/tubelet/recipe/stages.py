"""The stages of a progressive recipe: changed, filled in, and checked against each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tubelet.recipe.progressive import ALL, ProgressiveRecipe
from tubelet.recipe.single import SingleRun
from tubelet.recipe.text import override
from tubelet.spec import did_you_mean, replace


def change_stages(recipe: ProgressiveRecipe, changes: Sequence[str]) -> ProgressiveRecipe:
    """The recipe with `STAGE.field=value` changes; `all.field=value` changes every stage, `seed=1` the whole.

    They come after the changes that a stage has. ValueError where there is no such stage.
    """
    stages = {stage.name: list(stage.changes) for stage in recipe.stages}
    whole: list[str] = []
    for change in changes:
        first, dot, rest = change.partition(".")
        if "=" in first or not dot:
            whole.append(change)
        elif first in (ALL, *stages):
            for name in stages if first == ALL else (first,):
                stages[name].append(rest)
        else:
            hint = did_you_mean(first, (ALL, *stages))
            raise ValueError(f"{change!r}: no stage is called {first!r}; {hint}")
    changed = tuple(replace(stage, changes=tuple(stages[stage.name])) for stage in recipe.stages)
    return override(replace(recipe, stages=changed), whole)


def resolved(recipe: ProgressiveRecipe, find: Callable[[str], SingleRun]) -> ProgressiveRecipe:
    """The recipe with everything in it: each stage's own recipe, seeded and changed. `find` knows recipes by name.

    ValueError that names the stage, for what `find` and the changes say, and for stages that do not fit each other.
    """
    stages = []
    for stage in recipe.stages:
        try:
            own = find(stage.recipe) if isinstance(stage.recipe, str) else stage.recipe
            own = own if recipe.seed is None else replace(own, seed=recipe.seed)
            stages.append(replace(stage, recipe=override(own, stage.changes), changes=()))
        except ValueError as error:
            raise ValueError(f"stage {stage.name!r}: {error}") from error
    whole = replace(recipe, seed=None, stages=tuple(stages))
    for place in range(len(stages)):
        _check_stage(whole, place)
        _check_teacher(whole, place)
    return whole


def _check_stage(recipe: ProgressiveRecipe, place: int) -> None:
    stage, start = recipe.stages[place], recipe.start_of(place)
    where, own = f"stage {stage.name!r}", stage.filled
    if stage.evaluate is not False and not own.can_be_tested:
        raise ValueError(f"{where}: evaluate is for stages with classes, and this one {own.does}")
    if start is None:
        own.check_start(where, None, "")
        return
    before = recipe.stages[start]
    if own.start is not None:
        raise ValueError(
            f"{where} starts from stage {before.name!r}, and its recipe from {own.start}; "
            "take one out (start: null in the stage lets the recipe say it)"
        )
    own.check_start(where, before.filled, before.name)


def _check_teacher(recipe: ProgressiveRecipe, place: int) -> None:
    teacher = recipe.teacher_of(place)
    if teacher is not None:
        before, stage = recipe.stages[teacher], recipe.stages[place]
        stage.filled.check_teacher(f"stage {stage.name!r}", before.filled, before.name)
