"""Folders and lists as people have them; every mistake is one line with file and line number."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tubelet.video.lists.list_file import hmdb51_list
from tubelet.video.lists.manifest import check_labels, check_unique, read_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Empty files stand for videos: a manifest never opens them."""
    names = ["a.mp4", "b c.mp4", "d, e.mp4", "sub/a.mp4", "sub/deep/z.webm", "UPPER.AVI", "clip7.webm", "plain.mp4"]
    for name in [*names, ".hidden.mp4", "._a.mp4", "notes.txt", ".cache/x.mp4"]:
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "videos"


def listed(folder: Path, text: str, name: str = "list.txt") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def found(path: Path, *, labelled: bool = True) -> list[tuple[str, int | None]]:
    return [(video.name, video.label) for video in read_manifest(path, labelled=labelled).videos]


def test_folder_tree_is_sorted_and_leaves_out_hidden_files(folder: Path) -> None:
    manifest = read_manifest(folder, labelled=False)
    names = [video.name for video in manifest.videos]
    assert names == sorted(names)
    assert set(names) == {"a.mp4", "b c.mp4", "d, e.mp4", "sub/a.mp4", "sub/deep/z.webm", "UPPER.AVI", "clip7.webm",
                          "plain.mp4"}  # fmt: skip
    assert all(video.path == folder / video.name and video.label is None for video in manifest.videos)


def test_folder_classes_are_the_first_level(tmp_path: Path) -> None:
    for name in ("walk/1.mp4", "run/x/2.mp4", "run/3.mp4", "empty"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch() if name.endswith("mp4") else (tmp_path / name).mkdir()
    manifest = read_manifest(tmp_path, labelled=True)
    assert manifest.classes == ("empty", "run", "walk")
    assert [(video.name, video.label) for video in manifest.videos] == [
        ("run/3.mp4", 1),
        ("run/x/2.mp4", 1),
        ("walk/1.mp4", 2),
    ]
    (tmp_path / "loose.mp4").touch()
    with pytest.raises(ValueError, match=r"loose\.mp4: lies beside the class folders"):
        read_manifest(tmp_path, labelled=True)


def test_a_video_called_video_is_no_header(folder: Path) -> None:
    (folder / "video 1.mp4").touch()
    assert found(listed(folder, "video 1.mp4 0\na.mp4 1\n")) == [("video 1.mp4", 0), ("a.mp4", 1)]
    assert found(listed(folder, "video 1.mp4\n"), labelled=False) == [("video 1.mp4", None)]
    assert found(listed(folder, "video label\na.mp4 1\n")) == [("a.mp4", 1)]


def test_a_folder_that_cannot_be_opened_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its videos would be missing, and nobody know of them. Root opens everything, so the system's refusal is acted."""
    closed, scandir = str(folder / "closed"), os.scandir
    Path(closed).mkdir()

    def refusing(path: str) -> Any:
        if str(path) == closed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(ValueError, match=r"closed: cannot be opened \(permission denied\); make it readable"):
        read_manifest(folder, labelled=False)


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/1.mp4").touch()
    (tmp_path / "set").mkdir()
    (tmp_path / "set/run").symlink_to(tmp_path / "real")
    (tmp_path / "real/loop").symlink_to(tmp_path / "set")
    assert found(tmp_path / "set", labelled=False) == [("run/1.mp4", None)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.mp4 0\nb c.mp4 1\nd, e.mp4 2\n", [("a.mp4", 0), ("b c.mp4", 1), ("d, e.mp4", 2)]),
        ("a.mp4,0\nb c.mp4,1\nd, e.mp4,12\n", [("a.mp4", 0), ("b c.mp4", 1), ("d, e.mp4", 12)]),
        ("path,label\na.mp4,3\n", [("a.mp4", 3)]),
        ("path label\n\na.mp4 3\n\n", [("a.mp4", 3)]),
        ("a.mp4\t1\nb c.mp4\t0\n", [("a.mp4", 1), ("b c.mp4", 0)]),
        ('"d, e.mp4",1\na.mp4,0\n', [("d, e.mp4", 1), ("a.mp4", 0)]),
        ("\ufeffa.mp4 1\r\nsub/a.mp4 0\r\n", [("a.mp4", 1), ("sub/a.mp4", 0)]),
        ("a 1\nplain 0\n", [("a", 1), ("plain", 0)]),
        ("a.mp4 run\nsub/a.mp4 walk\n", [("a.mp4", 0), ("sub/a.mp4", 1)]),
        ("a.mp4,brush hair\nb c.mp4,walk\n", [("a.mp4", 0), ("b c.mp4", 1)]),
        ("filename,label\na.mp4,walk\nb c.mp4,run\n", [("a.mp4", 1), ("b c.mp4", 0)]),
    ],
)
def test_labelled_lists(folder: Path, text: str, expected: list[tuple[str, int]]) -> None:
    assert found(listed(folder, text)) == expected


def test_missing_extensions_are_tried_as_the_authors_do(folder: Path) -> None:
    videos = read_manifest(listed(folder, "a 0\nclip7 1\nnowhere 2\n"), labelled=True).videos
    assert [video.path.name for video in videos] == ["a.mp4", "clip7.webm", "nowhere.mp4"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.mp4\nb c.mp4\nd, e.mp4\n", ["a.mp4", "b c.mp4", "d, e.mp4"]),
        ("a.mp4 0\nb c.mp4 1\n", ["a.mp4", "b c.mp4"]),
        ("a.mp4,run\nsub/a.mp4,walk\n", ["a.mp4", "sub/a.mp4"]),
        ("a.mp4 0 -1\nb c.mp4 0 -1\n", ["a.mp4", "b c.mp4"]),
        ("path\na.mp4\n", ["a.mp4"]),
        ("a\nplain\n", ["a", "plain"]),
    ],
)
def test_unlabelled_lists(folder: Path, text: str, expected: list[str]) -> None:
    assert found(listed(folder, text), labelled=False) == [(name, None) for name in expected]


def test_root_is_where_paths_start(folder: Path, tmp_path: Path) -> None:
    source = listed(tmp_path, "a.mp4 0\n/nowhere/b.mp4 1\n")
    videos = read_manifest(source, root=folder / "sub", labelled=True).videos
    assert [str(video.path) for video in videos] == [str(folder / "sub/a.mp4"), "/nowhere/b.mp4"]


def test_json_lines(folder: Path) -> None:
    lines = [{"path": "a.mp4", "label": "walk"}, {"path": "b c.mp4", "label": "run"}]
    source = listed(folder, "\n".join(map(json.dumps, lines)), "list.jsonl")
    assert found(source) == [("a.mp4", 1), ("b c.mp4", 0)]
    assert read_manifest(source, labelled=True).classes == ("run", "walk")
    assert found(source, labelled=False) == [("a.mp4", None), ("b c.mp4", None)]


def test_single_video(folder: Path) -> None:
    assert found(folder / "a.mp4", labelled=False) == [("a.mp4", None)]
    with pytest.raises(ValueError, match="a single video has no label"):
        read_manifest(folder / "a.mp4", labelled=True)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("list.txt", "a.mp4 0\nb c.mp4\na.mp4 1\n", r"list\.txt, line 2: no label in 'b c.mp4'"),
        ("list.txt", "a.mp4 0\na.mp4 one\na.mp4 1\n", r"list\.txt, line 2: label 'one' is not a number"),
        ("list.txt", "a.mp4 0\n\na.mp4 -1\n", r"list\.txt, line 3: label -1 is negative"),
        ("list.txt", "a.mp4 run\na.mp4 walk\na.mp4 3\n", r"list\.txt, line 3: label '3' is a number"),
        ("list.txt", "a.mp4\n", r"list\.txt, line 1: no label"),
        ("list.txt", "\n\n", r"list\.txt: no videos listed"),
        ("list.txt", "path,label\n", r"list\.txt: no videos listed"),
        ("list.txt", "x/1.mp4 0\nx/2.mp4 1\n", r"list\.txt: none of the first 2 videos exists, for example .*1\.mp4"),
        ("list.jsonl", '{"path": "a.mp4", "label": 0}\n{"path": \n', r"list\.jsonl, line 2: not JSON"),
        ("list.jsonl", '{"file": "a.mp4", "label": 0}\n', r"list\.jsonl, line 1: expected"),
        ("list.jsonl", '{"path": "a.mp4"}\n', r"list\.jsonl, line 1: no label"),
        ("list.jsonl", '{"path": "a.mp4", "label": -2}\n', r"list\.jsonl, line 1: label -2 is negative"),
        ("walk_test_split1.txt", "a.mp4 1\n", r"HMDB51 split"),
    ],
)
def test_bad_lists_name_file_and_line(folder: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_manifest(listed(folder, text, name), labelled=True)
    assert "\n" not in str(caught.value)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file or folder"):
        read_manifest(tmp_path / "nowhere", labelled=False)
    with pytest.raises(ValueError, match="no videos in this folder"):
        read_manifest(tmp_path, labelled=False)
    with pytest.raises(ValueError, match="no such folder"):
        read_manifest(tmp_path, root=tmp_path / "nowhere", labelled=False)
    (tmp_path / "list.csv").write_bytes(b"\xff\xfe\x00\x81" * 50)
    with pytest.raises(ValueError, match="cannot be read as a list"):
        read_manifest(tmp_path / "list.csv", labelled=False)


def test_labels_out_of_range_name_the_line(folder: Path) -> None:
    manifest = read_manifest(listed(folder, "a.mp4 1\n\nsub/a.mp4 2\n"), labelled=True)
    check_labels(manifest, 3)
    with pytest.raises(ValueError, match=r"list\.txt, line 3: label 2 of sub/a\.mp4 is outside 0\.\.1; .*from 1"):
        check_labels(manifest, 2)


def test_repeats_are_an_error_only_when_asked(folder: Path) -> None:
    manifest = read_manifest(listed(folder, "a.mp4 1\nsub/a.mp4 2\na.mp4 1\n"), labelled=True)
    assert len(manifest.videos) == 3
    with pytest.raises(ValueError, match=r"list\.txt, line 3: a\.mp4 is already on line 1"):
        check_unique(manifest)


def test_ucf101_lists_are_counted_from_one(tmp_path: Path) -> None:
    (tmp_path / "classInd.txt").write_text("1 Archery\r\n2 Biking\r\n")
    for name in ("Archery/v_1.avi", "Biking/v_2.avi"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    train, test = tmp_path / "trainlist01.txt", tmp_path / "testlist01.txt"
    train.write_text("Biking/v_2.avi 2\nArchery/v_1.avi 1\n")
    test.write_text("Biking/v_2.avi\n")
    assert found(train) == [("Biking/v_2.avi", 1), ("Archery/v_1.avi", 0)]
    assert found(test) == [("Biking/v_2.avi", 1)]
    assert read_manifest(test, labelled=True).classes == ("Archery", "Biking")
    train.write_text("Biking/v_2.avi 1\n")
    with pytest.raises(ValueError, match=r"line 1: label 1 but .*classInd\.txt says 2"):
        read_manifest(train, labelled=True)
    test.write_text("Swim/v_2.avi\n")
    with pytest.raises(ValueError, match="line 1: class 'Swim' is not in"):
        read_manifest(test, labelled=True)


def test_hmdb51_splits_become_a_list(tmp_path: Path) -> None:
    (tmp_path / "walk_test_split1.txt").write_text("w1.avi 1\nw2.avi 2 \nw3.avi 0\n")
    (tmp_path / "brush_hair_test_split1.txt").write_text("b1.avi 2\nb2.avi 1\n")
    (tmp_path / "walk_test_split2.txt").write_text("w1.avi 2\n")
    assert hmdb51_list(tmp_path, split=1, part="train") == "brush_hair/b2.avi 0\nwalk/w1.avi 1\n"
    assert hmdb51_list(tmp_path, split=1, part="test") == "brush_hair/b1.avi 0\nwalk/w2.avi 1\n"
    with pytest.raises(ValueError, match="no files"):
        hmdb51_list(tmp_path, split=3, part="test")
    (tmp_path / "walk_test_split1.txt").write_text("w1.avi 1\nw2.avi 7\n")
    with pytest.raises(ValueError, match=r"walk_test_split1\.txt, line 2"):
        hmdb51_list(tmp_path, split=1, part="test")
