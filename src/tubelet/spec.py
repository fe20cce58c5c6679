"""Plain, strict, frozen data: the base of every part that a recipe holds."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

SpecT = TypeVar("SpecT", bound="Spec")


class Spec(BaseModel):
    """Base of all specs: frozen, unknown fields are an error, defaults are checked too."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


def _kind_from_name(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


ByKind = BeforeValidator(_kind_from_name)
"""Lets a union tagged by `kind` be named by its kind alone: `mask=tube` means `mask={kind: tube}`."""

Named = Annotated[SpecT, ByKind]


def replace(spec: SpecT, **changes: Any) -> SpecT:
    """A copy with some fields replaced, checked like a new one."""
    fields = {name: getattr(spec, name) for name in type(spec).model_fields}
    return type(spec).model_validate({**fields, **changes})


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """`; did you mean x?` with the nearest choice, else the sorted choices."""
    known = sorted(choices)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return "choose from " + ", ".join(known)


def explain(error: ValidationError, spec: type[BaseModel]) -> str:
    """One line for a user from a pydantic error: where, what, and the nearest known field."""
    return "; ".join(_explain_one(item, spec) for item in error.errors(include_url=False)[:3])


def _explain_one(item: Any, spec: type[BaseModel]) -> str:
    place = [str(part) for part in item["loc"]]
    where = ".".join(place)
    if item["type"] == "extra_forbidden":
        fields = _fields_at(spec, place[:-1])
        return f"unknown field {where!r}; {did_you_mean(place[-1], fields)}"
    if item["type"] == "missing":
        return f"missing field {where!r}"
    value = item.get("input")
    shown = "" if isinstance(value, (dict, list)) else f" (got {value!r})"
    return f"{where or 'recipe'}: {item['msg'].removeprefix('Value error, ')}{shown}"


def _fields_at(spec: type[BaseModel], place: list[str]) -> list[str]:
    """Names of the fields of the spec found by following `place` (field names and union tags)."""
    found: set[type[BaseModel]] = {spec}
    for part in place:
        inner: set[type[BaseModel]] = set()
        for model in found:
            if part in model.model_fields:
                inner |= _models_in(model.model_fields[part].annotation)
            elif _kind_of(model) == part:
                inner.add(model)
        found = inner or found
    return sorted({name for model in found for name in model.model_fields})


def _kind_of(model: type[BaseModel]) -> Any:
    field = model.model_fields.get("kind")
    return None if field is None else field.default


def _models_in(annotation: Any) -> set[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    arguments: tuple[Any, ...] = getattr(annotation, "__args__", ())
    return set().union(*[_models_in(argument) for argument in arguments]) if arguments else set()
