"""Folders of images in lists and folder trees, and in everything that takes a video."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import as_video, write_images
from video_files import numbers_of, write_video

from tubelet.data.cache import FrameCache
from tubelet.data.dataset import ClipDataset, ClipPlan, EvalDataset, Sample, Skipped, VideoViews
from tubelet.types import ClipShape
from tubelet.video.augment.augment import Augment, CentreCrop
from tubelet.video.lists.manifest import check_unique, read_manifest
from tubelet.video.lists.shards import ShardSample, write_shards
from tubelet.video.prepare.collection import open_collection, target_names
from tubelet.video.prepare.transcode import Preparation
from tubelet.video.read.file import open_video
from tubelet.video.sample import Strided

PLAN = ClipPlan(
    clip=ClipShape(frames=4, size=32), sampler=Strided(stride=2), augment=Augment(crop=CentreCrop(), flip=0.0), seed=5
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Folders a (8 images), b c (10), sub/d.e (12, named like a file of a list), and a video file v.mp4."""
    for name, count in {"a": 8, "b c": 10, "sub/d.mp4": 12}.items():
        write_images(tmp_path / name, count)
    write_video(tmp_path / "v.mp4", 6)
    return tmp_path


def listed(root: Path, text: str, *, labelled: bool) -> list[tuple[str, int | None]]:
    """Paths from `root` and labels, as a list in another folder gives them."""
    lists = root / "lists"
    lists.mkdir(exist_ok=True)
    (lists / "list.csv").write_text(text)
    videos = read_manifest(lists / "list.csv", root=root, labelled=labelled).videos
    return [(video.path.relative_to(root).as_posix(), video.label) for video in videos]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a 1 8\nb c 1 10\n", ["a#1+8", "b c#1+10"]),
        ("a 3 4\na 5 2\n", ["a#3+4", "a#5+2"]),
        ("a 0 -1\nb c 1 -1\nv.mp4 0 -1\n", ["a", "b c", "v.mp4"]),
        ("a\t1\t8\nsub/d.mp4\t1\t-1\n", ["a#1+8", "sub/d.mp4"]),
        ("a,0,-1\nv,0,-1\n", ["a", "v.mp4"]),
        ("a\nb c\nv\n", ["a", "b c", "v.mp4"]),
        ("a 3\nb c 0\nv.mp4 1\nsub/d.mp4 1\n", ["a", "b c", "v.mp4", "sub/d.mp4"]),
        ("a 8 3\nb c 10 1\nsub/d.mp4 12 0\n", ["a#+8", "b c#+10", "sub/d.mp4#+12"]),
        ("a 8 1\nb c 9 1\n", ["a#8+1", "b c#9+1"]),
        ("a 1 8\ngone 1 9\nv.mp4 0 -1\n", ["a#1+8", "gone#1+9", "v.mp4"]),
    ],
    ids=["V2", "ranges", "V2 whole", "tabs", "commas", "paths", "labels ignored", "V2 labelled", "no totals", "gone"],
)
def test_lists_without_labels(root: Path, text: str, expected: list[str]) -> None:
    assert listed(root, text, labelled=False) == [(path, None) for path in expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a 8 0\nb c 10 1\n", [("a#+8", 0), ("b c#+10", 1)]),
        ("a 5 0\ngone 10 1\n", [("a#+5", 0), ("gone#+10", 1)]),
        ("a 0\nb c 1\nsub/d.mp4 1\nv 0\n", [("a", 0), ("b c", 1), ("sub/d.mp4", 1), ("v.mp4", 0)]),
        ("a,8,run\nb c,10,walk\n", [("a#+8", 0), ("b c#+10", 1)]),
        ('"a",8,3\nv.mp4,2\n', [("a#+8", 3), ("v.mp4", 2)]),
    ],
    ids=["V2", "gone", "paths", "names", "quoted"],
)
def test_lists_with_labels(root: Path, text: str, expected: list[tuple[str, int]]) -> None:
    assert listed(root, text, labelled=True) == expected


def test_a_name_that_ends_in_a_number_is_a_name_where_it_is_there(root: Path) -> None:
    write_video(root / "a 8.mp4", 4)
    write_images(root / "b c 10", 4)
    assert listed(root, "a 8 0\nb c 10 1\n", labelled=True) == [("a 8.mp4", 0), ("b c 10", 1)]
    write_video(root / "a.mp4", 4)
    assert listed(root, "a 0\na 7 1\n", labelled=True) == [("a.mp4", 0), ("a#+7", 1)]


@pytest.mark.parametrize(
    ("text", "labelled", "message"),
    [
        ("a 8 0\nb c 0 1\n", True, r"list\.csv, line 2: 0 images of b c; expected 1 or more"),
        ("a 8 0\nb c -1 1\n", True, r"list\.csv, line 2: -1 images of b c; expected 1 or more"),
        ("a 1 8\nb c 1 0\n", False, r"list\.csv, line 2: 0 images of b c, from number 1 on; expected 1 or more"),
        ("a 1 8\nb c -2 3\n", False, r"list\.csv, line 2: 3 images of b c, from number -2 on"),
        ("a 1 8\nb c 1 10\n", True, r"list\.csv, line 1: 1 images of a; .* is this a list without them"),
        ("x 8 0\ny 4 1\n", True, r"list\.csv: none of the first 2 videos exists"),
    ],
)
def test_numbers_that_mean_no_images_stop_at_the_line(root: Path, text: str, labelled: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        listed(root, text, labelled=labelled)
    assert "\n" not in str(caught.value)


def test_names_tell_the_parts_of_a_folder_apart(root: Path) -> None:
    (root / "list.txt").write_text("a 1 4\na 5 4\nb c 1 10\n")
    manifest = read_manifest(root / "list.txt", labelled=False)
    check_unique(manifest)
    assert [video.name for video in manifest.videos] == ["a", "a#5+4", "b c"]
    with open_video(root / manifest.videos[1].name) as images:
        assert numbers_of(images.frames([0])) == pytest.approx([4], abs=0.3)


def test_folder_trees(tmp_path: Path) -> None:
    top = tmp_path / "top"
    for name in ("left/a", "left/b/deep", "right/c"):
        write_images(top / name, 3)
    write_video(top / "right/d.mp4", 3)
    write_images(top / "right/.hidden", 3)
    (top / "right/cover").mkdir()
    (top / "right/cover/front.jpg").touch()
    names = ["left/a", "left/b/deep", "right/c", "right/d.mp4"]
    manifest = read_manifest(top, labelled=False)
    assert [video.name for video in manifest.videos] == names
    assert [video.path for video in manifest.videos] == [top / name for name in names]
    manifest = read_manifest(top, labelled=True)
    assert [video.label for video in manifest.videos] == [0, 0, 1, 1]
    assert manifest.classes == ("left", "right")
    write_images(top / "loose", 2)
    with pytest.raises(ValueError, match=r"top/loose: lies beside the class folders"):
        read_manifest(top, labelled=True)


def test_pictures_beside_shards_do_not_count(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", 3)
    for folder in ("shards", "shards/preview"):
        write_images(tmp_path / folder, 2)
    write_shards(tmp_path / "shards", "train", [ShardSample(clip, {"label": 1})], shard_bytes=10**6)
    (video,) = read_manifest(tmp_path / "shards", labelled=True).videos
    assert (video.path.name.partition("#")[0], video.label) == ("train-000000.tar", 1)


def test_a_folder_of_images_may_be_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write_images(tmp_path / "clip.1", 3))
    manifest = read_manifest(Path(), labelled=False)
    assert [(video.path, video.name) for video in manifest.videos] == [(tmp_path / "clip.1", "clip.1")]
    with open_collection(manifest, tmp_path / "out", Preparation(), root=None) as collection:
        assert collection.names == ["clip.1"]


def test_a_single_folder_of_images_is_a_single_video(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "clip", 3)
    (video,) = read_manifest(folder, labelled=False).videos
    assert (video.path, video.name) == (folder, "clip")
    with pytest.raises(ValueError, match="a single video has no label"):
        read_manifest(folder, labelled=True)
    write_video(folder / "deeper/a.mp4", 3)
    assert [video.name for video in read_manifest(folder, labelled=False).videos] == ["deeper/a.mp4"]


@pytest.mark.parametrize("cached", [False, True])
def test_training_clips_are_those_of_a_video_of_the_same_images(root: Path, tmp_path: Path, cached: bool) -> None:
    as_video(root / "b c", tmp_path / "b.mov")
    plan = replace(PLAN, cache=tmp_path / "cache") if cached else PLAN
    for name in ("images", "file"):
        (root / f"{name}.txt").write_text("a 1 8\nb c 1 10\n" if name == "images" else "a 1 8\nb.mov\n")
    sets = [
        ClipDataset(read_manifest(root / f"{name}.txt", labelled=False).videos, plan) for name in ("images", "file")
    ]
    for epoch in range(3):
        one, other = (dataset[epoch, 1] for dataset in sets)
        assert isinstance(one, Sample)
        assert isinstance(other, Sample)
        assert torch.equal(one.video, other.video)


def test_clips_of_a_range_hold_its_frames_only(root: Path) -> None:
    (root / "list.txt").write_text("sub/d.mp4 5 4\n")
    dataset = ClipDataset(read_manifest(root / "list.txt", labelled=False).videos, PLAN)
    for epoch in range(4):
        sample = dataset[epoch, 0]
        assert isinstance(sample, Sample)
        shown = numbers_of(np.asarray(sample.video[0].permute(1, 2, 3, 0)))
        assert 3.7 < min(shown) <= max(shown) < 7.3


def test_bad_folders_are_skipped_with_the_name_of_the_image(root: Path) -> None:
    (root / "a/img_00003.png").write_bytes(b"")
    (root / "b c/img_00002.png").unlink()
    (root / "list.txt").write_text("a 8 0\nb c 10 1\nsub/d.mp4 12 1\n")
    videos = read_manifest(root / "list.txt", labelled=True).videos
    dataset = EvalDataset(videos, clip=ClipShape(frames=8, size=32), sampler=Strided(stride=1))
    reasons = {item.index: item.reason for item in map(dataset.__getitem__, range(3)) if isinstance(item, Skipped)}
    assert reasons == {0: "img_00003.png: an empty file", 1: "img_00002.png is missing"}
    assert isinstance(dataset[2], VideoViews)


def test_cached_frames_follow_the_images(root: Path, tmp_path: Path) -> None:
    cache = FrameCache(tmp_path / "cache", short_side=None)
    before = cache.frames(root / "a")
    assert before is not None
    (root / "a/img_00001.png").write_bytes((root / "b c/img_00009.png").read_bytes())
    after = cache.frames(root / "a")
    assert after is not None
    assert numbers_of(after[:1]) == pytest.approx([8], abs=0.3)
    part = cache.frames(root / "a#5+2")
    assert part is not None
    assert np.array_equal(part, before[4:6])


def test_prepared_files_are_called_after_the_folders(root: Path) -> None:
    write_images(root / "x.1", 2)
    paths = [root / name for name in ("x.1", "a#+8", "b c#3+2", "v.mp4")]
    assert target_names(paths, root) == ["x.1", "a", "b c#3+2", "v"]
