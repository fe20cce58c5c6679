"""Videos in tars are the videos in files: for us, who read them anywhere, and for `webdataset`, which streams them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from video_files import write_video

from tubelet.data.cache import FrameCache
from tubelet.video.lists.manifest import read_manifest
from tubelet.video.lists.shards import INDEX, ShardSample, expand, write_shards
from tubelet.video.read.byte_range import ByteRange, ByteRangeReader, byte_range_of
from tubelet.video.read.file import BadVideo, open_video

NAMES = ("up/a.mp4", "up/b c.mp4", "down/a.mp4", "down/d,e.mp4", "f.g.mp4")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for place, name in enumerate(NAMES):
        write_video(folder / name, 10 + place)
    return folder


@pytest.fixture
def shards(videos: Path, tmp_path: Path) -> Path:
    """Three tars of up to two videos each."""
    samples = [
        ShardSample(videos / name, {"name": name, "label": place % 2, "source": "x"})
        for place, name in enumerate(NAMES)
    ]
    folder = tmp_path / "shards"
    folder.mkdir()
    twice = int(2.5 * max((videos / name).stat().st_size for name in NAMES))
    assert [path.name for path in write_shards(folder, "train", samples, shard_bytes=twice)] == [
        f"train-00000{number}.tar" for number in range(3)
    ]
    return folder


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


def test_videos_in_shards_are_the_videos(videos: Path, shards: Path) -> None:
    manifest = read_manifest(shards, labelled=True)
    assert [(video.name, video.label) for video in manifest.videos] == [(name, k % 2) for k, name in enumerate(NAMES)]
    for video in manifest.videos:
        with open_video(video.path) as packed, open_video(videos / video.name) as plain:
            wanted = [len(plain) - 1, 0, 5, 5]
            assert np.array_equal(packed.frames(wanted), plain.frames(wanted))
            assert np.array_equal(packed.seconds, plain.seconds)
            assert packed.info == plain.info


def test_webdataset_reads_the_same(videos: Path, shards: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    urls = str(shards / "train-{000000..000002}.tar")
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode().to_tuple("mp4", "cls", "json"))
    assert [sample[2]["name"] for sample in samples] == list(NAMES)
    ours = read_manifest(Path(urls), labelled=True).videos
    for (data, label, about), video in zip(samples, ours, strict=True):
        assert data == (videos / about["name"]).read_bytes() == ByteRangeReader(_span(video.path)).read()
        assert label == video.label


def test_patterns_choose_shards(shards: Path) -> None:
    some = read_manifest(shards / "train-{000001..000002}.tar", labelled=False)
    assert [video.name for video in some.videos] == list(NAMES[2:])
    one = read_manifest(shards / "train-000001.tar", labelled=False)
    assert [video.name for video in one.videos] == list(NAMES[2:4])
    assert expand("a-{08..11}-{1..2}.tar")[::3] == ["a-08-1.tar", "a-09-2.tar", "a-11-1.tar"]
    with pytest.raises(ValueError, match=r"train-000003\.tar: no such shard"):
        read_manifest(shards / "train-{000002..000003}.tar", labelled=False)


def test_writing_again_is_the_same_or_replaces(videos: Path, shards: Path) -> None:
    before = {path.name: path.read_bytes() for path in shards.iterdir()}
    other = shards / "val-000000.tar"
    write_tar(other, {"x.mp4": (videos / NAMES[0]).read_bytes()})
    samples = [
        ShardSample(videos / name, {"name": name, "label": k % 2, "source": "x"}) for k, name in enumerate(NAMES)
    ]
    write_shards(shards, "train", samples[:2], shard_bytes=10**9)
    assert sorted(path.name for path in shards.iterdir()) == [INDEX, "train-000000.tar", other.name]
    assert (shards / "train-000000.tar").read_bytes() == before["train-000000.tar"]
    assert len(read_manifest(shards, labelled=False).videos) == 3


def test_the_index_is_made_once_and_anew_for_a_changed_tar(videos: Path, shards: Path) -> None:
    (shards / INDEX).unlink()
    first = read_manifest(shards, labelled=True)
    fields = json.loads((shards / INDEX).read_text())
    fields["shards"]["train-000000.tar"]["members"][0][1] = "told by the index"
    (shards / INDEX).write_text(json.dumps(fields))
    assert read_manifest(shards, labelled=True).videos[0].name == "told by the index"
    write_tar(shards / "train-000000.tar", {"000000000.mp4": (videos / NAMES[0]).read_bytes(), "000000000.cls": b"7"})
    again = read_manifest(shards, labelled=True)
    assert (again.videos[0].name, again.videos[0].label) == ("train-000000.tar/000000000", 7)
    assert [video.name for video in again.videos[1:]] == [video.name for video in first.videos[2:]]
    (shards / INDEX).write_text("damaged")
    assert len(read_manifest(shards, labelled=True).videos) == 4


def test_other_peoples_shards(videos: Path, tmp_path: Path) -> None:
    """Folders in keys, class names, other containers, members that say nothing to us."""
    data = (videos / NAMES[0]).read_bytes()
    write_tar(
        tmp_path / "x.tar",
        {"v/b.webm": data, "v/b.json": b'{"class": "up"}', "v/a.MP4": data, "v/a.txt": b"a caption",
         "v/a.json": b'{"class": "down"}', "readme.txt": b"x"},
    )  # fmt: skip
    manifest = read_manifest(tmp_path / "x.tar", labelled=True)
    assert manifest.classes == ("down", "up")
    assert [(video.name, video.label) for video in manifest.videos] == [("x.tar/v/a", 0), ("x.tar/v/b", 1)]
    with open_video(manifest.videos[1].path) as video:
        assert len(video) == 10


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.mp4": b"x"}, "x.tar/a has no label"),
        ({"a.mp4": b"x", "a.cls": b"one"}, "a: its .json or .cls cannot be understood"),
        ({"a.mp4": b"x", "a.json": b'{"label": "up"}'}, "label 'up'"),
        ({"a.txt": b"x"}, "no videos in it"),
    ],
)
def test_bad_shards_are_told_in_one_line(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    write_tar(tmp_path / "x.tar", members)
    with pytest.raises(ValueError, match="x.tar") as caught:  # noqa: RUF043
        read_manifest(tmp_path / "x.tar", labelled=True)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [100, 2000])
def test_a_tar_that_is_cut_short(videos: Path, tmp_path: Path, keep: int) -> None:
    write_tar(tmp_path / "x.tar", {"a.mp4": (videos / NAMES[0]).read_bytes()})
    (tmp_path / "x.tar").write_bytes((tmp_path / "x.tar").read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"x\.tar: (cut short|not a tar)"):
        read_manifest(tmp_path / "x.tar", labelled=False)


def test_a_video_in_a_shard_can_be_broken_or_gone(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", {"a.mp4": b"no video"})
    (video,) = read_manifest(tmp_path, labelled=False).videos
    with pytest.raises(BadVideo, match="invalid data"), open_video(video.path):
        pass
    (tmp_path / "x.tar").unlink()
    with pytest.raises(BadVideo, match="no such file"), open_video(video.path):
        pass


def test_frames_of_shards_are_kept_in_the_cache(shards: Path, tmp_path: Path) -> None:
    cache = FrameCache(tmp_path / "cache", short_side=None)
    first, second = (video.path for video in read_manifest(shards, labelled=False).videos[:2])
    for path in (first, second):
        with open_video(path) as video:
            frames: Any = cache.frames(path)
            assert np.array_equal(frames, video.frames(range(len(video))))
    assert cache.file(first) != cache.file(second)


def test_spans_read_and_seek_like_files(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(bytes(range(100)))
    path = ByteRange(tmp_path / "x.tar", 10, 20).path()
    assert byte_range_of(path) == ByteRange(tmp_path / "x.tar", 10, 20)
    assert byte_range_of(tmp_path / "x.tar") is None
    plain = io.BytesIO(bytes(range(10, 30)))
    with ByteRangeReader(_span(path)) as reader:
        for step in ((5, 0), (3, 1), (-4, 2), (0, 2), (0, 0)):
            assert reader.seek(*step) == plain.seek(*step)
            assert (reader.read(6), reader.tell()) == (plain.read(6), plain.tell())
        assert reader.read() == plain.read()


def _span(path: Path) -> ByteRange:
    span = byte_range_of(path)
    assert span is not None
    return span
