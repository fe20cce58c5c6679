"""A collection is prepared once, file by file, whatever happens in between; what it holds is told truly."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from video_files import write_video

from tubelet.video.lists.manifest import Manifest, read_manifest
from tubelet.video.prepare.collection import Collection, open_collection, target_names
from tubelet.video.prepare.lists import list_name, write_lists
from tubelet.video.prepare.record import JOURNAL, Record
from tubelet.video.prepare.transcode import Preparation
from tubelet.video.read.file import open_video

HOW = Preparation(short_side=32)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos in two folders of a set, in two containers."""
    folder = tmp_path_factory.mktemp("made") / "set"
    for place, name in enumerate(("up/a.mp4", "up/b c.mkv", "down/a.mp4", "down/d,e.mp4")):
        write_video(folder / name, 10 + place)
    return folder


@pytest.fixture
def videos(made: Path, tmp_path: Path) -> Path:
    """The set in a folder of the test's own, as hard links."""
    folder = tmp_path / "set"
    for path in made.rglob("*.m*"):
        target = folder / path.relative_to(made)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, target)
    return folder


def run(
    manifest: Manifest, out: Path, how: Preparation = HOW, *, root: Path | None = None, max_skipped: float = 0.0
) -> Collection:
    with open_collection(manifest, out, how, root=root) as collection:
        name = list_name(manifest, out)
        for _ in collection.work(workers=1, limit_seconds=60.0):
            pass
        write_lists(collection, name, max_skipped=max_skipped)
    return collection


def new(collection: Collection) -> set[str]:
    return set(collection.done) - collection.done_before


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def files(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*.mp4")}


def test_a_folder_becomes_the_same_folder(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(read_manifest(videos, labelled=False), out)
    names = ["down/a.mp4", "down/d,e.mp4", "up/a.mp4", "up/b c.mp4"]
    as_folder, as_list = read_manifest(out, labelled=False), read_manifest(out / "set.csv", labelled=False)
    assert [video.name for video in as_folder.videos] == [video.name for video in as_list.videos] == names
    sources = rows(out / "sources.csv")
    assert [(row["list"], row["path"]) for row in sources] == [("set", name) for name in names]
    assert sources[3]["source"] == str(videos / "up/b c.mkv")
    assert [float(sources[3][f"{which}_seconds"]) for which in ("start", "end")] == pytest.approx([0, 11 / 25])
    for row, name in zip(sources, names, strict=True):
        with open_video(out / name) as video:
            assert (len(video), video.info.width, video.info.height) == (int(row["frames"]), 42, 32)
        assert (out / name).stat().st_size == int(row["bytes"])
    assert rows(out / "skipped.csv") == []


def test_labels_stay_numbers_or_names(videos: Path, tmp_path: Path) -> None:
    numbers = tmp_path / "train.csv"
    numbers.write_text("set/up/a.mp4 1\nset/up/b c.mkv 0\nset/down/d,e.mp4 1\n")
    run(read_manifest(numbers, labelled=True), tmp_path / "out")
    assert (tmp_path / "out/train.csv").read_text() == "set/up/a.mp4 1\nset/up/b c.mp4 0\nset/down/d,e.mp4 1\n"
    run(read_manifest(videos, labelled=True), tmp_path / "named")
    back = read_manifest(tmp_path / "named/set.csv", labelled=True)
    assert back.classes == ("down", "up")
    assert [(video.name, video.label) for video in back.videos] == [
        ("down/a.mp4", 0), ("down/d,e.mp4", 0), ("up/a.mp4", 1), ("up/b c.mp4", 1),
    ]  # fmt: skip
    assert [row["class"] for row in rows(tmp_path / "named/sources.csv")] == ["down", "down", "up", "up"]


def test_names_of_classes_that_are_numbers_are_not_taken_for_labels(videos: Path, tmp_path: Path) -> None:
    (videos / "up").rename(videos / "7")
    (videos / "down").rename(videos / "30")
    run(read_manifest(videos, labelled=True), tmp_path / "out")
    back = read_manifest(tmp_path / "out/set.csv", labelled=True)
    assert [(video.name, video.label) for video in back.videos][::2] == [("30/a.mp4", 0), ("7/a.mp4", 1)]


def test_lists_share_files(videos: Path, tmp_path: Path) -> None:
    for name, lines in {"train": "set/up/a.mp4 1\nset/down/a.mp4 0\n", "val": "set/down/a.mp4 0\n"}.items():
        (tmp_path / f"{name}.csv").write_text(lines)
    out = tmp_path / "out"
    assert len(new(run(read_manifest(tmp_path / "train.csv", labelled=True), out))) == 2
    assert new(run(read_manifest(tmp_path / "val.csv", labelled=True), out)) == set()
    assert {row["list"] for row in rows(out / "sources.csv")} == {"train", "val"}
    assert (out / "val.csv").read_text() == "set/down/a.mp4 0\n"
    (tmp_path / "other").mkdir()
    (tmp_path / "other/val.csv").write_text("../set/up/a.mp4 1\n")
    with pytest.raises(ValueError, match="--name"):
        run(read_manifest(tmp_path / "other/val.csv", labelled=True), out)


def test_what_is_done_is_not_done_again(videos: Path, tmp_path: Path) -> None:
    manifest, out = read_manifest(videos, labelled=False), tmp_path / "out"
    run(manifest, out)
    first = files(out)
    assert new(run(manifest, out)) == set()
    changed = videos / "up/a.mp4"
    changed.unlink()  # a hard link: writing would change the other tests' file
    write_video(changed, 5)
    (out / "down/a.mp4").unlink()
    assert new(run(manifest, out)) == {"up/a", "down/a"}
    assert {name for name, data in files(out).items() if data != first[name]} == {"up/a.mp4"}
    assert len(new(run(manifest, out, Preparation(short_side=24)))) == 4


def test_parts_of_before_go(videos: Path, tmp_path: Path) -> None:
    manifest, out = read_manifest(videos / "up/a.mp4", labelled=False), tmp_path / "out"
    collection = run(manifest, out, Preparation(short_side=32, segment_seconds=0.2))
    assert sorted(files(out)) == ["a.part0000.mp4", "a.part0001.mp4"]
    assert sum(part.frames for part in collection.done["a"].parts) == 10
    run(manifest, out)
    assert sorted(files(out)) == ["a.mp4"]


def test_what_cannot_be_read_is_named_and_capped(videos: Path, tmp_path: Path) -> None:
    (videos / "broken.mp4").write_bytes(b"no video")
    listed, out = tmp_path / "list.txt", tmp_path / "out"
    listed.write_text("set/up/a.mp4\nset/broken.mp4\nset/missing.mp4\n")
    manifest = read_manifest(listed, labelled=False)
    with pytest.raises(ValueError, match=r"2 of 3 videos .*skipped\.csv"):
        run(manifest, out, max_skipped=0.5)
    assert not (out / "list.csv").exists()
    assert [(row["path"], row["reason"]) for row in rows(out / "skipped.csv")] == [
        (str(videos / "missing.mp4"), "no such file"),
        (str(videos / "broken.mp4"), "cannot be opened as a video: invalid data"),
    ]
    assert new(run(manifest, out, max_skipped=0.7)) == set(), "what was good is not done again"
    assert (out / "list.csv").read_text() == "set/up/a.mp4\n"


def test_a_stop_in_between_changes_nothing(videos: Path, tmp_path: Path) -> None:
    manifest = read_manifest(videos, labelled=False)
    run(manifest, tmp_path / "whole")
    with open_collection(manifest, tmp_path / "out", HOW, root=None) as collection:
        for _, said in collection.work(workers=1, limit_seconds=60.0):
            if isinstance(said, Record):
                break
    assert len(files(tmp_path / "out")) == 1
    with (tmp_path / "out" / JOURNAL).open("a") as file:
        file.write('{"format": 1, "na')  # as a crash leaves it
    assert len(new(run(manifest, tmp_path / "out"))) == 3
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_a_killed_run_goes_on(videos: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tubelet", "prepare", str(videos), str(tmp_path / "out"), "--short-side", "32"]
    process = subprocess.Popen([*command, "--workers", "1"], stderr=subprocess.DEVNULL)
    journal = tmp_path / "out" / JOURNAL
    end = time.monotonic() + 60
    while not (journal.is_file() and journal.stat().st_size) and time.monotonic() < end:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run(read_manifest(videos, labelled=False), tmp_path / "out")
    run(read_manifest(videos, labelled=False), tmp_path / "whole")
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_a_full_disk_stops_the_work_in_one_line(videos: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for a disk without room."""
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600)); "
        "from tubelet.cli import main; main(sys.argv[1:])"
    )
    arguments = ["prepare", str(videos), str(tmp_path / "out"), "--workers", "1"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].endswith("File too large")
    assert files(tmp_path / "out") == {}


def test_two_at_a_time_are_refused(videos: Path, tmp_path: Path) -> None:
    manifest = read_manifest(videos, labelled=False)
    command = "import sys; from tubelet.cli import main; main(sys.argv[1:])"
    with open_collection(manifest, tmp_path / "out", HOW, root=None):
        done = subprocess.run(
            [sys.executable, "-c", command, "prepare", str(videos), str(tmp_path / "out")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert "another process" in done.stderr


def test_sources_are_safe(videos: Path, tmp_path: Path) -> None:
    before = files(videos)
    manifest = read_manifest(videos, labelled=False)
    for out in (videos, videos / "prepared"):
        with pytest.raises(ValueError, match="lies inside"):
            run(manifest, out)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"notes\.txt"):
        run(manifest, tmp_path / "mine")
    listed = tmp_path / "set.txt"
    listed.write_text("set/up/a.mp4\n")
    with pytest.raises(ValueError, match="has not made"):
        run(read_manifest(listed, labelled=False), videos.parent)
    assert files(videos) == before


def test_files_of_two_sources_are_not_mixed(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(read_manifest(videos / "up", labelled=False), out)
    with pytest.raises(ValueError, match="--root"):
        run(read_manifest(videos / "down", labelled=False), out)
    run(read_manifest(videos / "down", labelled=False), tmp_path / "both", root=videos)
    run(read_manifest(videos / "up", labelled=False), tmp_path / "both", root=videos)
    assert sorted(files(tmp_path / "both")) == ["down/a.mp4", "down/d,e.mp4", "up/a.mp4", "up/b c.mp4"]


def test_names(tmp_path: Path) -> None:
    for name in ("one/a.mp4", "one/a.avi", "one/b.webm", "one/b.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    paths: list[Any] = [tmp_path / "one/a.mp4", tmp_path / "one/a.avi", tmp_path / "one/b.webm", Path("/far/c.mov")]
    assert target_names(paths, tmp_path) == ["one/a.mp4", "one/a.avi", "one/b", "far/c"]
    assert target_names([tmp_path / "one/../one/b.webm"], tmp_path / "one") == ["b"]
    assert target_names([tmp_path / " x\ny.mp4"], tmp_path) == ["%20x%0Ay"]
