"""Frames are exact, wherever decoding starts; damaged files say so in one line."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from video_files import level, numbers_of, plainly, write_video

from tubelet.video.read.file import BadVideo, frames, open_video, probe
from tubelet.video.read.opened import Opened
from tubelet.video.read.packets import PacketIndex, packet_index
from tubelet.video.read.pixels import UprightRgb

UNEVEN = [0, 40, 80, 500, 510, 520, 900, 1300, 1310, 1400, 2000, 2040, 2080, 2100, 2900, 3000]


@pytest.mark.parametrize("b_frames", [0, 3])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi", "a.h264"])
def test_every_frame_is_the_one_a_full_decode_gives(tmp_path: Path, name: str, b_frames: int) -> None:
    path = write_video(tmp_path / name, 30, b_frames=b_frames)
    reference = plainly(path)
    assert len(reference) == 30
    with open_video(path) as video:
        assert len(video) == video.info.frames == 30
        for wanted in ([29], [0], [7, 8, 9], [23, 4, 4, 16], list(range(30))):
            got = video.frames(wanted)
            assert all(np.array_equal(frame, reference[index]) for frame, index in zip(got, wanted, strict=True))


def test_frames_carry_their_numbers(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 24, b_frames=2)
    np.testing.assert_allclose(numbers_of(frames(path, [5, 0, 23, 5])), [5, 0, 23, 5], atol=0.4)


def test_variable_rate_counts_frames_in_order_of_time(tmp_path: Path) -> None:
    path = write_video(tmp_path / "vfr.mp4", len(UNEVEN), times=UNEVEN, b_frames=2, gop=6)
    with open_video(path) as video:
        np.testing.assert_allclose(video.seconds, np.array(UNEVEN) / 1000, atol=1e-3)
        np.testing.assert_allclose(numbers_of(video.frames([10, 3, 15])), [10, 3, 15], atol=0.4)


def test_open_groups_start_at_the_key_frame_before(tmp_path: Path) -> None:
    """Frames stored after a key frame but shown before it lean on the group before."""
    options = {"x264-params": "open-gop=1:keyint=8:min-keyint=8:scenecut=0:bframes=3:b-adapt=0"}
    path = write_video(tmp_path / "open.mp4", 40, b_frames=3, options=options)
    reference = plainly(path)
    with open_video(path) as video:
        for index in range(40):
            assert np.array_equal(video.frames([index])[0], reference[index]), index


def test_converts_only_what_is_wanted_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", 64, gop=8)
    converted: list[int] = []
    put = UprightRgb.put

    def counting(self: UprightRgb, key: int, frame: Any) -> None:
        converted.append(key)
        put(self, key, frame)

    monkeypatch.setattr(UprightRgb, "put", counting)
    frames(path, [50, 18, 50])
    assert converted == [18, 50]


def lie(monkeypatch: pytest.MonkeyPatch, change: Callable[[int, int], int | None], *, more: int = 0) -> None:
    """Packets whose times are changed by `change` (place, time), and `more` frames at the end that are not there."""

    def lying(file: Opened) -> PacketIndex:
        index = packet_index(file)
        assert index is not None
        moved = {time: change(place, time) or time for time, place in index.position.items()}
        position = {moved[time]: place for time, place in index.position.items()}
        position |= {int(index.times[-1]) + 1 + extra: len(position) + extra for extra in range(more)}
        return PacketIndex(np.array(sorted(position)), position, index.key_times, index.key_positions)

    monkeypatch.setattr("tubelet.video.read.file.packet_index", lying)


def test_packets_that_promise_other_times_are_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", 20)
    reference = plainly(path)
    lie(monkeypatch, lambda place, time: time + 1 if place == 3 else None)
    with open_video(path) as video:
        assert np.ptp(np.diff(video.seconds)) > 1e-6
        assert np.array_equal(video.frames([6])[0], reference[6])
        assert np.ptp(np.diff(video.seconds)) < 1e-6


def test_packets_that_promise_more_frames_are_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", 20)
    lie(monkeypatch, lambda place, time: None, more=1)
    with open_video(path) as video, pytest.raises(BadVideo, match="only 20 of 21 frames"):
        video.frames([5, 20])


def test_short_side_scales_down_and_never_up(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 4, size=(96, 64))
    assert frames(path, [0, 1], short_side=32).shape == (2, 32, 48, 3)
    assert frames(path, [0], short_side=100).shape == (1, 64, 96, 3)
    small = frames(path, [3], short_side=16)[0]
    np.testing.assert_allclose(small[:, -6:].mean(), level(3), atol=3)


def test_facts(tmp_path: Path) -> None:
    info = probe(write_video(tmp_path / "a.mp4", 12))
    assert (info.frames, info.width, info.height, info.rotation, info.codec) == (12, 64, 48, 0, "h264")
    assert info.fps == pytest.approx(25)
    assert info.duration_seconds == pytest.approx(12 / 25, abs=1e-3)


def broken_files(folder: Path) -> dict[str, Path]:
    good = write_video(folder / "good.mp4", 40, gop=40).read_bytes()
    contents = {
        "empty.mp4": b"",
        "text.mp4": b"<html>404</html>" * 20,
        "no_index.mp4": good[: len(good) // 2],
        "hole.mp4": good[:1500] + bytes(len(good) - 3500) + good[-2000:],
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in [*contents, "missing.mp4"]}


def test_damaged_files_are_bad_videos_with_a_plain_reason_and_are_closed(tmp_path: Path) -> None:
    for name, path in broken_files(tmp_path).items():
        with pytest.raises(BadVideo) as caught:
            frames(path, [0, 39] if name == "hole.mp4" else [0])
        assert caught.value.path == path
        assert caught.value.reason
        assert "\n" not in caught.value.reason
        assert pickle.loads(pickle.dumps(caught.value)).reason == caught.value.reason
    held = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if fd.isdigit() and _is_open(fd)]
    assert not [path for path in held if str(tmp_path) in path]


def _is_open(fd: str) -> bool:
    return os.path.islink(f"/proc/self/fd/{fd}")


def test_reason_for_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BadVideo, match="no such file"):
        probe(tmp_path / "missing.mp4")


def test_index_outside_the_video_is_our_mistake_not_the_files(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 5)
    for wanted in ([5], [-1], []):
        with pytest.raises(IndexError):
            frames(path, wanted)


def test_check_decodes_the_whole_file(tmp_path: Path) -> None:
    with open_video(write_video(tmp_path / "a.mp4", 9)) as video:
        assert video.check() == 9
    with open_video(broken_files(tmp_path)["hole.mp4"]) as video, pytest.raises(BadVideo) as caught:
        video.check()
    assert 0 <= caught.value.good_frames < 40


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi", "a.flv"])
def test_no_damage_escapes_as_another_error(tmp_path: Path, name: str) -> None:
    """Flipped, cut and zeroed files either read or are BadVideo; nothing else comes out."""
    rng = np.random.default_rng(0)
    good = write_video(tmp_path / name, 20, b_frames=0).read_bytes()
    reasons: list[str] = []
    for trial in range(40):
        data = bytearray(good)
        place = int(rng.integers(len(data)))
        if trial % 3 == 0:
            for flipped in rng.integers(len(data), size=20):
                data[flipped] ^= 1 << int(rng.integers(8))
        elif trial % 3 == 1:
            del data[place:]
        else:
            data[place : place + 300] = bytes(len(data[place : place + 300]))
        (tmp_path / name).write_bytes(data)
        try:
            with open_video(tmp_path / name) as video:
                assert video.info.frames == len(video) > 0
                assert len(video.frames(rng.integers(len(video), size=3))) == 3
        except BadVideo as bad:
            reasons.append(bad.reason)
    assert reasons
    assert all(reason and "\n" not in reason for reason in reasons)
