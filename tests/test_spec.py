"""Specs are strict, and say in one line what is wrong."""

from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError

from tubelet.spec import ByKind, Spec, did_you_mean, explain, replace


class Round(Spec):
    kind: Literal["round"] = "round"
    radius: float = Field(default=1.0, gt=0)


class Square(Spec):
    kind: Literal["square"] = "square"
    side: float = 2.0


class Drawing(Spec):
    shape: Annotated[Round | Square, Field(discriminator="kind"), ByKind] = Round()
    spare: Round | None = None
    copies: int = 1


def problem(fields: object) -> str:
    with pytest.raises(ValidationError) as caught:
        Drawing.model_validate(fields)
    return explain(caught.value, Drawing)


def test_an_unknown_field_names_the_nearest_one() -> None:
    assert problem({"copys": 2}) == "unknown field 'copys'; did you mean 'copies'?"


def test_an_unknown_field_inside_a_part_names_that_parts_fields() -> None:
    assert "did you mean 'radius'?" in problem({"shape": {"kind": "round", "radios": 2}})
    assert "did you mean 'radius'?" in problem({"spare": {"radios": 2}})


def test_a_wrong_value_is_shown_with_its_place() -> None:
    line = problem({"copies": "many"})
    assert line.startswith("copies: ")
    assert "'many'" in line


def test_an_unknown_kind_lists_the_kinds() -> None:
    line = problem({"shape": "star"})
    assert "'round', 'square'" in line


def test_a_part_can_be_named_by_its_kind_alone() -> None:
    assert Drawing.model_validate({"shape": "square"}).shape == Square()


def test_replace_checks_the_new_value() -> None:
    assert replace(Drawing(), copies=3).copies == 3
    with pytest.raises(ValidationError):
        replace(Drawing(), copies="x")


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Drawing().copies = 2  # type: ignore[misc]


def test_did_you_mean_lists_the_choices_when_nothing_is_near() -> None:
    assert did_you_mean("zzz", ["one", "two"]) == "choose from one, two"
