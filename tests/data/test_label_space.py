"""Classes of several sets in one space of labels, matched by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tubelet.data.label_space import LabelSpace, merged, read_label_space, read_renames, renamed, rows

GYM = LabelSpace(("high jump", "golf driving", "juggling balls"))
HOME = LabelSpace(("Juggling_Balls", "doing  laundry", "Golf Driving"))


def test_names_match_without_case_spaces_and_underscores() -> None:
    assert rows(HOME, GYM, {}).tolist() == [2, -1, 1]
    assert rows(GYM, GYM, {}).tolist() == [0, 1, 2]


def test_a_union_has_each_class_once_in_the_order_of_first_appearance() -> None:
    both = merged([GYM, HOME])
    assert both.names == ("high jump", "golf driving", "juggling balls", "doing  laundry")
    assert rows(HOME, both, {}).tolist() == [2, 3, 1]
    assert merged([HOME, GYM]).names[0] == "Juggling_Balls"


def test_a_renamed_class_is_found_under_its_new_name() -> None:
    renames = {"doing laundry": "High_Jump"}
    assert rows(HOME, GYM, renames).tolist() == [2, 0, 1]
    assert merged([GYM, renamed(HOME, renames)]).names == GYM.names
    both_are_one = {"doing laundry": "chores", "golf driving": "Chores"}
    assert renamed(HOME, both_are_one).names == ("Juggling_Balls", "chores")


def test_a_rename_of_a_class_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match="'swimming' is to be renamed, but no class has this name"):
        rows(HOME, GYM, {"swimming": "high jump"})


@pytest.mark.parametrize("names", [(), ("a", "A_"), ("a", " ")])
def test_a_space_has_names_that_differ(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="class"):
        LabelSpace(names)


def test_a_file_of_classes_is_read_with_its_quotes_and_marks(tmp_path: Path) -> None:
    file = tmp_path / "k710.txt"
    file.write_text('\ufeff"petting animal (not cat)"\nhigh jump\n\n', encoding="utf-8")
    assert read_label_space(file).names == ("petting animal (not cat)", "high jump")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n\nb\n", "line 2: no class name"),
        ("High Jump\nb\nhigh_jump\n", "line 3: class 'high_jump' is already on line 1"),
        ("", "no class names in it"),
    ],
)
def test_a_bad_file_of_classes_is_refused_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "k710.txt").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_label_space(tmp_path / "k710.txt")
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="cannot be read as a list of class names"):
        read_label_space(tmp_path / "none.txt")


def test_renames_are_read_from_csv(tmp_path: Path) -> None:
    file = tmp_path / "renames.csv"
    file.write_text('laughing, laughing hard\n\n"eating, drinking","eating"\n')
    assert read_renames(file) == {"laughing": "laughing hard", "eating, drinking": "eating"}


@pytest.mark.parametrize(
    ("text", "message"),
    [("a\n", "line 1: expected"), ("a,b\nb,\n", "line 2: expected"), ("a,b\na,c\n", "line 2: 'a' is renamed")],
)
def test_a_bad_file_of_renames_is_refused_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "renames.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_renames(tmp_path / "renames.csv")
