"""Plain, strict, frozen data: the base of every part that a recipe holds."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

SpecT = TypeVar("SpecT", bound="Spec")
_UNKNOWN_KIND: Final = "unknown_kind"


class Spec(BaseModel):
    """Base of all specs: frozen, unknown fields are an error, defaults are checked too."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


def _kind_from_name(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


ByKind = BeforeValidator(_kind_from_name)
"""Lets a union tagged by `kind` be named by its kind alone: `mask=tube` means `mask={kind: tube}`."""

Named = Annotated[SpecT, ByKind]


@dataclass(frozen=True, eq=False)
class OneOf:
    """Annotates a field that holds one of several specs, told apart by their `kind`.

    `Annotated[Tube | Random, OneOf()]` chooses among the members of the union; `Annotated[EncoderSpec,
    OneOf(ENCODERS)]` among the entries of a table, which is looked up at each reading: a new kind is one entry. The
    kind alone (`mask=tube`) stands for all defaults; `unnamed` is the kind of a mapping that does not say its own. An
    unknown kind is an error that says which kinds there are. Dumps hold the fields of the spec that is there.
    """

    table: Mapping[str, type[Spec]] | None = None
    unnamed: str | None = None

    def choices(self, annotation: Any) -> Mapping[str, type[Spec]]:
        """The specs by their kinds; `annotation` is what this one stands behind."""
        return kinds_of(annotation) if self.table is None else self.table

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        table = self.choices(source)
        described = {kind: handler.generate_schema(spec) for kind, spec in table.items()}
        return core_schema.no_info_wrap_validator_function(
            partial(self._read, table, frozenset(described)),
            core_schema.tagged_union_schema(described, discriminator="kind"),
            serialization=core_schema.simple_ser_schema("any"),
        )

    def _read(self, table: Mapping[str, type[Spec]], described: frozenset[str], value: Any, handler: Any) -> Any:
        if isinstance(value, tuple(table.values())):
            return value
        fields = {"kind": value} if isinstance(value, str) else value
        if isinstance(fields, Spec):
            raise _unknown(f"unknown kind {_kind_of(type(fields))!r}; {did_you_mean('', table)}")
        if not isinstance(fields, dict):
            raise _unknown(f"needs a kind; {did_you_mean('', table)}")
        kind = fields.get("kind", self.unnamed)
        if kind is None:
            raise _unknown(f"the kind is missing; {did_you_mean('', table)}")
        if not isinstance(kind, str) or kind not in table:
            raise _unknown(f"unknown kind {kind!r}; {did_you_mean(str(kind), table)}")
        return handler({**fields, "kind": kind}) if kind in described else table[kind].model_validate(fields)


def kinds_of(union: Any) -> dict[str, type[Spec]]:
    """The specs of a union (`Tube | Random`, annotated or not) by their kinds, in its order."""
    return {_kind_of(spec): spec for spec in _members(union)}


def _members(annotation: Any) -> list[type[Spec]]:
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        return [annotation]
    return [spec for argument in get_args(annotation) for spec in _members(argument)]


def _unknown(problem: str) -> PydanticCustomError:
    return PydanticCustomError(_UNKNOWN_KIND, "{problem}", {"problem": problem})


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
    path, _ = _followed(spec, place)
    where = ".".join(path)
    if item["type"] == "extra_forbidden":
        _, models = _followed(spec, place[:-1])
        fields = {name for model in models for name in model.model_fields}
        return f"unknown field {where!r}; {did_you_mean(place[-1], fields)}"
    if item["type"] == "missing":
        return f"missing field {where!r}"
    value = item.get("input")
    shown = "" if isinstance(value, (dict, list)) or item["type"] == _UNKNOWN_KIND else f" (got {value!r})"
    return f"{where or 'recipe'}: {item['msg'].removeprefix('Value error, ')}{shown}"


def _followed(spec: type[BaseModel], place: list[str]) -> tuple[list[str], set[type[BaseModel]]]:
    """The place of an error as a user writes it, and the models whose fields are there.

    Pydantic puts the kind between a field and what is inside it (`mask.tube.ratio`), a user does not (`mask.ratio`).
    """
    found: set[type[BaseModel]] = {spec}
    path = []
    for part in place:
        tagged = {model for model in found if _kind_of(model) == part}
        if tagged:
            found = tagged
            continue
        path.append(part)
        found = {one for model in found if part in model.model_fields for one in _models_at(model, part)} or found
    return path, found


def _models_at(model: type[BaseModel], name: str) -> set[type[BaseModel]]:
    """The models that a field may hold."""
    field = model.model_fields[name]
    return _models_in(field.annotation, field.metadata)


def _models_in(annotation: Any, metadata: Iterable[Any] = ()) -> set[type[BaseModel]]:
    for mark in metadata:
        if isinstance(mark, OneOf):
            return set(mark.choices(annotation).values())
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    behind = getattr(annotation, "__metadata__", ())
    return set().union(*[_models_in(argument, behind) for argument in get_args(annotation)])


def _kind_of(model: type[BaseModel]) -> Any:
    field = model.model_fields.get("kind")
    return None if field is None else field.default
