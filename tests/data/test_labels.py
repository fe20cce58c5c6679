"""Classes and labels: from folders, lists, files of names; wrong ones are named in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tubelet.data.class_names import names_text, read_names
from tubelet.data.labels import class_names, relabelled, without_videos
from tubelet.video.lists.manifest import Manifest, VideoRef

LIST = Path("lists/train.csv")


def manifest(labels: list[int], classes: tuple[str, ...] | None = None) -> Manifest:
    videos = tuple(VideoRef(Path(f"v/{n}.mp4"), label, f"{n}.mp4", n + 1) for n, label in enumerate(labels))
    return Manifest(videos, classes, LIST)


def test_classes_are_counted_from_the_largest_label() -> None:
    assert class_names(manifest([0, 3, 1]), names_file=None, classes=None) == ("0", "1", "2", "3")


def test_the_recipe_may_ask_for_more_classes_than_occur() -> None:
    names = class_names(manifest([0, 1]), names_file=None, classes=4)
    assert len(names) == 4
    assert without_videos(manifest([0, 1]).videos, names) == ("2", "3")


def test_a_file_of_names_rules_and_must_agree_with_the_recipe(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("left\nright turn\n\n")
    assert class_names(manifest([0, 1]), names_file=file, classes=None) == ("left", "right turn")
    assert read_names(file) == ("left", "right turn")
    with pytest.raises(ValueError, match=r"names 2 classes but the recipe says classes=3"):
        class_names(manifest([0, 1]), names_file=file, classes=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [("a\n\nb\n", "line 2: no class name"), ("a\nb\na\n", "line 3: class 'a' is already on line 1"), ("", "no class")],
)
def test_a_bad_file_of_names_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "names.txt"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_names(file)


def test_one_class_is_no_task() -> None:
    with pytest.raises(ValueError, match="one class only"):
        class_names(manifest([0, 0]), names_file=None, classes=None)


def test_a_label_out_of_range_is_named_with_file_and_line() -> None:
    with pytest.raises(ValueError, match=r"lists/train\.csv, line 3: label 7 of 2\.mp4 is outside 0\.\.3") as error:
        relabelled(manifest([0, 1, 7]), ("0", "1", "2", "3"))
    assert "\n" not in str(error.value)


def test_labels_are_matched_by_name_where_a_test_folder_lacks_a_class() -> None:
    learnt = ("bounce", "grow", "shrink")
    test = manifest([0, 1, 0], ("bounce", "shrink"))
    assert [video.label for video in relabelled(test, learnt)] == [0, 2, 0]


def test_names_match_without_case_and_underscores_unless_that_is_all_they_differ_in() -> None:
    test = manifest([0, 1], ("Golf_Driving", "high jump"))
    assert [video.label for video in relabelled(test, ("high jump", "golf driving"))] == [1, 0]
    with pytest.raises(ValueError, match="class 'Golf_Driving' is none of the classes learnt"):
        relabelled(test, ("high jump", "golf driving", "GOLF driving"))


def test_an_unknown_class_of_a_test_set_is_refused() -> None:
    with pytest.raises(ValueError, match=r"line 2: class 'grown' is none of the classes learnt; did you mean 'grow'"):
        relabelled(manifest([0, 1], ("bounce", "grown")), ("bounce", "grow"))


def test_names_read_back_as_written(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text(names_text(("a b", "ü")), encoding="utf-8")
    assert read_names(tmp_path / "names.txt") == ("a b", "ü")
