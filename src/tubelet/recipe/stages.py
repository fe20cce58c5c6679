"""The stages of a progressive recipe: changed, filled in, and checked against each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.methods.distillation import Distill
from tubelet.recipe.kinds import FinetuneRecipe, PretrainRecipe
from tubelet.recipe.progressive import ALL, OneRun, ProgressiveRecipe, Stage
from tubelet.recipe.text import override
from tubelet.spec import Spec, did_you_mean, replace
from tubelet.targets.features import Features
from tubelet.targets.pseudo_labels import PseudoLabels


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


def resolved(recipe: ProgressiveRecipe, find: Callable[[str], OneRun]) -> ProgressiveRecipe:
    """The recipe with everything in it: each stage's own recipe, seeded and changed. `find` knows recipes by name.

    ValueError that names the stage, for what `find` and the changes say, and for stages that do not fit each other.
    """
    stages = []
    for stage in recipe.stages:
        try:
            own = find(stage.recipe) if isinstance(stage.recipe, str) else stage.recipe
            own = own if recipe.seed is None else replace(own, seed=recipe.seed)
            stages.append(replace(stage, recipe=_changed(own, stage.changes), changes=()))
        except ValueError as error:
            raise ValueError(f"stage {stage.name!r}: {error}") from error
    whole = replace(recipe, seed=None, stages=tuple(stages))
    for place in range(len(stages)):
        _check_stage(whole, place)
        _check_teacher(whole, place)
    return whole


def _changed(recipe: OneRun, changes: Sequence[str]) -> OneRun:
    if isinstance(recipe, PretrainRecipe):  # `override` gives back the kind that it gets, which mypy must see
        return override(recipe, changes)
    return override(recipe, changes)


def _check_stage(recipe: ProgressiveRecipe, place: int) -> None:
    stage, start = recipe.stages[place], recipe.start_of(place)
    where, own = f"stage {stage.name!r}", stage.filled
    if isinstance(own, PretrainRecipe) and stage.evaluate is not False:
        raise ValueError(f"{where}: evaluate is for stages with classes, and this one pre-trains")
    maps_classes = isinstance(own, FinetuneRecipe) and own.start_head.kind == "same_classes"
    if start is None:
        if maps_classes and own.start is None:
            raise ValueError(f"{where}: start_head=same_classes, but it starts from nothing; name a stage or set start")
        return
    before = recipe.stages[start]
    if own.start is not None:
        raise ValueError(
            f"{where} starts from stage {before.name!r}, and its recipe from {own.start}; "
            "take one out (start: null in the stage lets the recipe say it)"
        )
    whole = isinstance(own, PretrainRecipe) and own.start_part == "whole"
    if whole and not isinstance(before.filled, PretrainRecipe):
        raise ValueError(
            f"{where} pre-trains and cannot start from {before.name!r}, a classifier without a decoder; "
            "start_part=encoder takes its encoder alone"
        )
    if maps_classes and not isinstance(before.filled, FinetuneRecipe):
        raise ValueError(f"{where}: start_head=same_classes, but {before.name!r} pre-trains and has no classes")
    _check_model(where, own, before)


def _check_teacher(recipe: ProgressiveRecipe, place: int) -> None:
    teacher = recipe.teacher_of(place)
    if teacher is None:
        return
    before, own = recipe.stages[teacher], recipe.stages[place].filled
    where = f"stage {recipe.stages[place].name!r}"
    asks: Distill | Features | PseudoLabels
    if isinstance(own, FinetuneRecipe):
        if own.distill is None:
            raise ValueError(
                f"{where} has a teacher, stage {before.name!r}, but does not distil: set distill={{}} in it"
            )
        asks = own.distill
    elif isinstance(own.target, Features | PseudoLabels):
        asks = own.target
    else:
        raise ValueError(
            f"{where} has a teacher, stage {before.name!r}, but its target {own.target.kind} asks no stage: "
            "set target=features or target=pseudo_labels"
        )
    if asks.teacher is not None:
        raise ValueError(f"{where} learns from stage {before.name!r}, and its recipe from {asks.teacher}; take one out")
    if not isinstance(asks, Features) and not isinstance(before.filled, FinetuneRecipe):
        raise ValueError(f"{where} learns classes, but {before.name!r}, its teacher, pre-trains and has none")


_MAY_DIFFER: Final = frozenset(
    {"drop_path", "checkpointing", "norm_eps", "final_norm_eps", "positions", "layer_scale"},
)
"""Fields of a network that may change from stage to stage; of the layer scale only whether there is one matters."""


def _check_model(where: str, own: OneRun, before: Stage) -> None:
    """Facts that show in no shape, such as heads, are looked at too."""
    theirs = before.filled
    parts: dict[str, tuple[Spec, Spec]] = {"model.encoder": (own.model.encoder, theirs.model.encoder)}
    if isinstance(own, PretrainRecipe) and isinstance(theirs, PretrainRecipe) and own.start_part == "whole":
        if own.model.kind != theirs.model.kind:
            raise ValueError(
                f"{where} is a {own.model.kind} and cannot start from {before.name!r}, a {theirs.model.kind}; "
                "start_part=encoder takes its encoder alone"
            )
        if isinstance(own.model, MaskedAutoencoderSpec) and isinstance(theirs.model, MaskedAutoencoderSpec):
            parts["model.decoder"] = (own.model.decoder, theirs.model.decoder)
    for part, (here, there) in parts.items():
        mine, other = _facts(here), _facts(there)
        if theirs.clip.frames == 1 < own.clip.frames:  # images: kernels are inflated
            mine, other = _in_space(mine), _in_space(other)
        for field, value in mine.items():
            if other.get(field) != value:
                raise ValueError(
                    f"{where}: {part}.{field} is {value}, but {other.get(field)} in {before.name!r}, "
                    "which it starts from; make them agree"
                )


_IN_TIME: Final = frozenset({"tubelet", "relative_time"})
"""Fields that say how an encoder sees time; and the first of three numbers does (time, down, across)."""


def _in_space(facts: dict[str, object]) -> dict[str, object]:
    """What is left of the facts without time."""
    return {name: _down_and_across(value) for name, value in facts.items() if name not in _IN_TIME}


def _down_and_across(value: object) -> object:
    if isinstance(value, dict):
        return {name: _down_and_across(inner) for name, inner in value.items()}
    if isinstance(value, list) and len(value) == 3 and all(isinstance(number, int) for number in value):
        return value[1:]
    return [_down_and_across(inner) for inner in value] if isinstance(value, list) else value


def _facts(network: Spec) -> dict[str, object]:
    """What two networks must share, by field."""
    fields = network.model_dump(mode="json")
    facts = {name: value for name, value in fields.items() if name not in _MAY_DIFFER}
    if "layer_scale" in fields:
        facts["layer_scale (set or not)"] = fields["layer_scale"] is not None
    return facts
