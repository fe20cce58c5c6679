"""The frame cache never shows a stale, half-written or damaged frame."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from video_files import numbers_of, write_video

from tubelet.data import cache as module
from tubelet.data.cache import FrameCache
from tubelet.video.read.decoders import Reading
from tubelet.video.read.file import BadVideo, frames


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "a.mp4", 10)


def kept_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_keeps_what_reading_gives(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FrameCache(tmp_path / "cache", short_side=24)
    first = cache.frames(video)
    assert first is not None
    assert np.array_equal(first, frames(video, range(10), short_side=24))
    monkeypatch.setattr(Reading, "open", None)  # a second decode would fail
    again = cache.frames(video)
    assert isinstance(again, np.memmap)
    assert np.array_equal(first, again)


def test_other_sizes_have_their_own_file(video: Path, tmp_path: Path) -> None:
    shapes = [FrameCache(tmp_path / "cache", short_side=side).frames(video) for side in (24, 16, None)]
    assert [array.shape[1] for array in shapes if array is not None] == [24, 16, 48]
    assert len(kept_files(tmp_path / "cache")) == 3


def test_changed_video_is_decoded_anew_and_its_old_frames_go(video: Path, tmp_path: Path) -> None:
    cache = FrameCache(tmp_path / "cache", short_side=None)
    cache.frames(video)
    write_video(video, 6)
    os.utime(video, (1, 1))
    anew = cache.frames(video)
    assert anew is not None
    np.testing.assert_allclose(numbers_of(anew), range(6), atol=0.4)
    assert len(kept_files(tmp_path / "cache")) == 1


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY garbage", None])
def test_damaged_file_is_written_anew(video: Path, tmp_path: Path, damage: bytes | None) -> None:
    cache = FrameCache(tmp_path / "cache", short_side=None)
    good = cache.frames(video)
    assert good is not None
    (file,) = kept_files(tmp_path / "cache")
    file.write_bytes(file.read_bytes()[:1000] if damage is None else damage)
    again = cache.frames(video)
    assert again is not None
    assert np.array_equal(again, good)
    assert isinstance(cache.frames(video), np.memmap)


def test_full_disk_leaves_no_half_file_and_stops_nothing(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    cache = FrameCache(tmp_path / "cache", short_side=None)
    assert cache.frames(video) is not None
    assert kept_files(tmp_path / "cache") == []


def test_bad_videos_are_bad_each_time(tmp_path: Path) -> None:
    cache = FrameCache(tmp_path / "cache", short_side=None)
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    for path in (tmp_path / "bad.mp4", tmp_path / "missing.mp4"):
        for _ in range(2):
            with pytest.raises(BadVideo):
                cache.frames(path)


def test_long_videos_are_not_kept(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_BYTES", 1000)
    assert FrameCache(tmp_path / "cache", short_side=None).frames(video) is None
    assert kept_files(tmp_path / "cache") == []


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="frame cache cannot be made"):
        FrameCache(tmp_path / "file/cache", short_side=None)
