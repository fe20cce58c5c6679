"""Files of results: whole, readable, and pictures for few and many classes."""

from __future__ import annotations

import csv
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from tubelet.disk.tables import write_csv, write_json
from tubelet.eval.metrics import class_rows
from tubelet.eval.results import confusion_png, write_classes, write_confusion


def test_csv_keeps_names_with_commas_and_leaves_none_empty(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ["name", "value", "good"], [["a, b", None, True], ["ü", 1 / 3, False]])
    with (tmp_path / "a.csv").open(encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["name", "value", "good"], ["a, b", "", "yes"], ["ü", "0.333333", "no"]]


def test_files_are_replaced_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "m.json", {"top1": 0.5})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "m.json", {"top1": float("nan")})
    assert json.loads((tmp_path / "m.json").read_text()) == {"top1": 0.5}
    assert [path.name for path in tmp_path.iterdir()] == ["m.json"]


def test_class_and_confusion_tables(tmp_path: Path) -> None:
    counts = np.array([[2, 1], [0, 3]])
    write_classes(tmp_path / "classes.csv", class_rows(counts, ("in", "out")))
    write_confusion(tmp_path / "confusion.csv", counts, ("in", "out"))
    assert (tmp_path / "classes.csv").read_text().splitlines()[1] == "0,in,3,2,2,0.666667,1,out"
    assert (tmp_path / "confusion.csv").read_text().splitlines()[1:] == ["in,2,1", "out,0,3"]


@pytest.mark.parametrize("classes", [2, 10, 60, 400])
def test_the_picture_grows_with_the_classes_and_stays_a_picture(tmp_path: Path, classes: int) -> None:
    counts = np.eye(classes, dtype=np.int64) * 5
    counts[0, -1] = 3
    names = tuple(f"class $ {index} with quite a long name" for index in range(classes))
    confusion_png(counts, names, tmp_path / "c.png", title="a run, 12 videos")
    data = (tmp_path / "c.png").read_bytes()
    width, height = struct.unpack(">II", data[16:24])
    assert data.startswith(b"\x89PNG")
    assert 500 < width < 3000
    assert 500 < height < 3000
    assert [path.name for path in tmp_path.iterdir()] == ["c.png"]
