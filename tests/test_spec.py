"""Specs are strict, and say in one line what is wrong."""

from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError

from tubelet.spec import ByKind, OneOf, Spec, did_you_mean, explain, kinds_of, replace


class Round(Spec):
    kind: Literal["round"] = "round"
    radius: float = Field(default=1.0, gt=0)


class Square(Spec):
    kind: Literal["square"] = "square"
    side: float = 2.0


class Hexagon(Spec):
    kind: Literal["hexagon"] = "hexagon"


SHAPES = kinds_of(Round | Square)


class Drawing(Spec):
    shape: Annotated[Round | Square, OneOf()] = Round()
    frame: Annotated[Spec, OneOf(SHAPES, unnamed="square")] | None = None
    corners: tuple[Annotated[Round | Square, OneOf()], ...] = ()
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


def test_an_unknown_kind_says_which_there_are() -> None:
    assert problem({"shape": "star"}) == "shape: unknown kind 'star'; did you mean 'square'?"
    assert problem({"corners": ["round", {"kind": "x"}]}) == "corners.1: unknown kind 'x'; choose from round, square"
    assert problem({"shape": {"radius": 2}}) == "shape: the kind is missing; choose from round, square"
    assert problem({"shape": 3}) == "shape: needs a kind; choose from round, square"
    assert problem({"shape": Hexagon()}) == "shape: unknown kind 'hexagon'; choose from round, square"
    assert problem({"shape": {"kind": ["{x}"]}}) == "shape: unknown kind ['{x}']; choose from round, square"


def test_an_error_is_placed_as_a_user_writes_it() -> None:
    assert problem({"shape": {"kind": "round", "radius": -1}}).startswith("shape.radius: ")
    assert problem({"frame": {"sid": 3}}) == "unknown field 'frame.sid'; did you mean 'side'?"


def test_a_kind_that_is_added_to_the_table_can_be_read_and_written(monkeypatch: pytest.MonkeyPatch) -> None:
    class Star(Spec):
        kind: Literal["star"] = "star"
        points: int = 5

    monkeypatch.setitem(SHAPES, "star", Star)
    drawing = Drawing.model_validate({"frame": {"kind": "star", "points": 6}})
    assert drawing.frame == Star(points=6)
    assert Drawing.model_validate_json(drawing.model_dump_json()) == drawing
    assert drawing.model_dump(exclude_defaults=True) == {"frame": {"points": 6}}
    assert problem({"frame": {"kind": "star", "points": "x"}}).startswith("frame.points: ")


def test_a_schema_is_that_of_the_union() -> None:
    class Other(Spec):
        shape: Annotated[Round | Square, Field(discriminator="kind"), ByKind] = Round()

    shape = Drawing.model_json_schema()["properties"]["shape"]
    assert shape == Other.model_json_schema()["properties"]["shape"]
    assert Drawing.model_validate({"frame": {}}).frame == Square()


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
