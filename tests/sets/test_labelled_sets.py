"""Labelled sources in one space of labels: matched by name, renamed, refused in one line where a class has no place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tubelet.recipe import FinetuneRecipe, LabelledData, LabelledSource
from tubelet.sets.labelled import LabelledSets, labelled_sets
from tubelet.spec import replace
from tubelet.video.sample import Segments

HOME = "c.mp4,Golf Driving\nd.mp4,doing laundry\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lists of two sets; their videos are not opened."""
    monkeypatch.chdir(tmp_path)
    for name in "abcd":
        (tmp_path / f"{name}.mp4").touch()
    (tmp_path / "gym.csv").write_text("a.mp4,high jump\nb.mp4,golf_driving\n")
    (tmp_path / "home.csv").write_text(HOME)
    (tmp_path / "numbers.csv").write_text("c.mp4 1\nd.mp4 0\n")
    (tmp_path / "numbers.txt").write_text("doing laundry\ngolf driving\n")
    return tmp_path


def read(*sources: LabelledSource, classes: int | None = None, class_names: str | None = None) -> LabelledSets:
    data = LabelledData(sources=sources, class_names=class_names)
    return labelled_sets(FinetuneRecipe(name="toy", data=data, classes=classes))


def labels(sets: LabelledSets) -> list[int | None]:
    return [video.label for video in sets.videos]


def test_classes_of_several_sources_are_one_by_name(here: Path) -> None:
    sets = read(LabelledSource(train="gym.csv"), LabelledSource(train="home.csv", weight=2))
    by_name = dict(zip("abcd", labels(sets), strict=True))
    assert set(sets.names) == {"golf_driving", "high jump", "doing laundry"}
    assert sets.names[by_name["b"] or 0] == sets.names[by_name["c"] or 0] == "golf_driving"
    assert sets.names[by_name["d"] or 0] == "doing laundry"
    assert [source.name for source in sets.train] == ["gym", "home"]
    assert [source.weight for source in sets.train] == [1.0, 2.0]
    assert sets.mixes


def test_numbers_get_their_meaning_from_class_names(here: Path) -> None:
    numbered = LabelledSource(train="numbers.csv", class_names="numbers.txt")
    assert labels(read(LabelledSource(train="gym.csv"), numbered))[2:] == [0, 2]
    with pytest.raises(ValueError, match=r"numbers\.csv: labels are plain numbers.*class_names for source numbers"):
        read(LabelledSource(train="gym.csv"), LabelledSource(train="numbers.csv"))
    (here / "numbers.txt").write_text("doing laundry\n")
    with pytest.raises(ValueError, match=r"numbers\.csv, line 1: label 1 of c\.mp4 is outside 0\.\.0"):
        read(LabelledSource(train="gym.csv"), numbered)


def test_a_given_space_rules_and_a_class_without_a_place_is_named(here: Path) -> None:
    (here / "k3.txt").write_text("golf driving\ndoing laundry\nHigh Jump\nswimming\n")
    sources = (LabelledSource(train="gym.csv"), LabelledSource(train="home.csv"))
    sets = read(*sources, class_names="k3.txt")
    assert sets.names == ("golf driving", "doing laundry", "High Jump", "swimming")
    assert labels(sets) == [2, 0, 0, 1]
    (here / "k3.txt").write_text("golf driving\nhigh jump\n")
    with pytest.raises(ValueError, match=r"home\.csv, line 2: class 'doing laundry' of source home.*k3\.txt") as error:
        read(*sources, class_names="k3.txt")
    assert "\n" not in str(error.value)


def test_renames_give_a_class_its_place(here: Path) -> None:
    (here / "new.csv").write_text("doing laundry,high jump\n")
    sets = read(LabelledSource(train="gym.csv"), LabelledSource(train="home.csv", renames="new.csv"))
    assert len(sets.names) == 2
    assert labels(sets)[0] == labels(sets)[3]
    (here / "new.csv").write_text("doing laundy,high jump\n")
    with pytest.raises(ValueError, match=r"new\.csv: 'doing laundy' is to be renamed.*in source home"):
        read(LabelledSource(train="gym.csv"), LabelledSource(train="home.csv", renames="new.csv"))


def test_validation_lists_follow_the_names_of_training(here: Path) -> None:
    (here / "val.csv").write_text("d.mp4,Doing_Laundry\n")
    sets = read(LabelledSource(train="gym.csv"), LabelledSource(train="home.csv", val="val.csv", sampler=Segments()))
    assert [(source.name, source.sampler) for source in sets.val] == [("home", Segments())]
    assert sets.val[0].videos[0].label == labels(sets)[3]
    (here / "val.csv").write_text("d.mp4,swimming\n")
    with pytest.raises(ValueError, match=r"val\.csv, line 1: class 'swimming' of source home is none of the classes"):
        read(LabelledSource(train="gym.csv"), LabelledSource(train="home.csv", val="val.csv"))


def test_the_number_of_classes_must_agree(here: Path) -> None:
    with pytest.raises(ValueError, match="the sources have together 2 classes but the recipe says classes=5"):
        read(LabelledSource(train="gym.csv"), classes=5)
    (here / "one.csv").write_text("a.mp4,jump\n")
    with pytest.raises(ValueError, match=r"one class only \(jump\)"):
        read(LabelledSource(train="one.csv"))


def test_a_single_set_is_read_as_ever(here: Path) -> None:
    recipe = FinetuneRecipe(name="toy", data=LabelledData(train="numbers.csv", val="numbers.csv"))
    sets = labelled_sets(recipe)
    assert sets.names == ("0", "1")
    assert not sets.mixes
    assert labels(sets) == [1, 0]
    assert [source.name for source in sets.val] == ["numbers.csv"]
    with pytest.raises(ValueError, match="no videos to train on"):
        labelled_sets(replace(recipe, data=LabelledData()))
