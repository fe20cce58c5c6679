"""Where clips lie in a video, and reading them in one pass."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_embed import damage
from video_files import numbers_of, write_video

from tubelet.data.dataset import EvalDataset, VideoViews
from tubelet.inference.embed import windows as windows_module
from tubelet.inference.embed.windows import WindowBounds, Windows, frames_of, plan, read_windows
from tubelet.types import ClipShape
from tubelet.video.augment.crops import test_crops as crops_of
from tubelet.video.lists.manifest import VideoRef
from tubelet.video.read import seek, sweep
from tubelet.video.read.file import BadVideo, VideoFile, frames, open_video
from tubelet.video.read.opened import Opened
from tubelet.video.read.sweep import Sweep
from tubelet.video.sample import Sampler, Segments, Span, Strided, Uniform

CLIP = ClipShape(frames=4, size=16)


def shown(total: int, fps: float = 10.0) -> np.ndarray:
    return np.arange(total) / fps


def spans(places: Sequence[WindowBounds]) -> list[tuple[float, float]]:
    return [(round(place.start_seconds, 6), round(place.end_seconds, 6)) for place in places]


@pytest.mark.parametrize("sampler", [Uniform(), Segments()])
@pytest.mark.parametrize("total", [1, 3, 50])
def test_a_sampler_of_the_whole_video_gives_one_window(sampler: Sampler, total: int) -> None:
    places = plan(shown(total), total / 10, sampler, 4, Windows())
    assert places == [WindowBounds(0, total, 0.0, total / 10)]
    assert frames_of(places[0], sampler, 4, Windows()).tolist() == sampler.views(total, 4, 1)[0].tolist()


@pytest.mark.parametrize("sampler", [Strided(stride=3), Span(stride=3)])
def test_dense_windows_lie_end_to_end_and_the_last_one_ends_with_the_video(sampler: Sampler) -> None:
    places = plan(shown(40), 4.0, sampler, 4, Windows())
    assert [(place.first, place.stop) for place in places] == [(0, 12), (12, 24), (24, 36), (28, 40)]
    assert spans(places) == [(0.0, 1.2), (1.2, 2.4), (2.4, 3.6), (2.8, 4.0)]
    if isinstance(sampler, Strided):
        assert frames_of(places[1], sampler, 4, Windows()).tolist() == [12, 15, 18, 21]


def test_dense_windows_that_fit_exactly_need_no_other() -> None:
    assert spans(plan(shown(24), 2.4, Strided(stride=3), 4, Windows())) == [(0.0, 1.2), (1.2, 2.4)]


def test_dense_windows_step_by_seconds_where_asked() -> None:
    places = plan(shown(20), 2.0, Strided(stride=3), 4, Windows(step_seconds=0.3))
    assert [place.first for place in places] == [0, 3, 6, 8]


def test_windows_of_seconds_spread_the_clip_over_the_frames_shown_in_them() -> None:
    windows = Windows(seconds=1.0)
    places = plan(shown(25), 2.5, Strided(stride=1), 4, windows)
    assert spans(places) == [(0.0, 1.0), (1.0, 2.0), (1.5, 2.5)]
    assert [(place.first, place.stop) for place in places] == [(0, 10), (10, 20), (15, 25)]
    assert frames_of(places[1], Strided(stride=1), 4, windows).tolist() == [11, 13, 16, 18]


def test_times_that_are_a_rounding_error_apart_are_the_same() -> None:
    seconds = np.round(np.arange(90) / 30, 3)  # a container with times in milliseconds
    places = plan(seconds, 3.0, Uniform(), 4, Windows(seconds=1.0))
    assert [(place.first, place.stop) for place in places] == [(0, 30), (30, 60), (60, 90)]


def test_a_window_goes_by_time_where_the_rate_varies() -> None:
    seconds = np.array([0.0, 0.1, 0.2, 0.3, 3.0, 3.1, 3.2, 3.9])  # frame 3 stands still for 2.7 s
    places = plan(seconds, 4.0, Uniform(), 2, Windows(seconds=1.0))
    assert [(place.first, place.stop) for place in places] == [(0, 4), (3, 4), (3, 4), (4, 8)]
    assert frames_of(places[1], Uniform(), 2, Windows(seconds=1.0)).tolist() == [3, 3]


@pytest.mark.parametrize("windows", [Windows(seconds=9.0), Windows(seconds=9.0, step_seconds=1.0)])
def test_a_short_video_is_one_window(windows: Windows) -> None:
    assert plan(shown(3), 0.3, Strided(stride=4), 4, windows) == [WindowBounds(0, 3, 0.0, 0.3)]
    assert plan(shown(3), 0.3, Strided(stride=4), 4, Windows()) == [WindowBounds(0, 3, 0.0, 0.3)]


@pytest.mark.parametrize("total", [1, 7, 10, 11, 19, 20, 21, 37, 300])
@pytest.mark.parametrize("step", [None, 0.25, 0.7, 1.0])
def test_every_frame_is_in_a_window_and_no_window_is_shorter_than_another(total: int, step: float | None) -> None:
    for windows in (Windows(seconds=1.0, step_seconds=step), Windows(step_seconds=step)):
        places = plan(shown(total), total / 10, Strided(stride=2), 5, windows)
        covered = {frame for place in places for frame in range(place.first, place.stop)}
        assert covered == set(range(total))
        lengths = [place.end_seconds - place.start_seconds for place in places]
        assert max(lengths) - min(lengths) < 1e-9
        starts = [place.start_seconds for place in places]
        assert starts == sorted(set(starts))


def test_a_step_without_a_length_is_refused_for_a_model_of_whole_videos() -> None:
    with pytest.raises(ValueError, match=r"give both \(--window and --step\)"):
        plan(shown(9), 0.9, Uniform(), 4, Windows(step_seconds=1.0))


@pytest.mark.parametrize("sampler", [Uniform(), Segments(), Strided(stride=6), Span(stride=6)])
def test_one_window_is_the_test_view_of_evaluation(tmp_path: Path, sampler: Sampler) -> None:
    path = write_video(tmp_path / "v.mp4", 24, size=(64, 48))
    (window,) = read_windows(path, clip=CLIP, sampler=sampler, windows=Windows())
    view = EvalDataset([VideoRef(path, None, "v")], clip=CLIP, sampler=sampler)[0]
    assert isinstance(view, VideoViews)
    assert torch.equal(window.video, view.video[0])
    assert (window.clip, window.start_seconds, round(window.end_seconds, 6)) == (0, 0.0, 0.96)


@pytest.mark.parametrize("step", [0.08, 0.2, 0.4, 0.6])
@pytest.mark.parametrize("name", ["v.mp4", "v.avi"])
def test_windows_hold_the_frames_that_reading_each_alone_gives(tmp_path: Path, step: float, name: str) -> None:
    path = write_video(tmp_path / name, 33, size=(48, 64), gop=100, b_frames=2)
    windows = Windows(seconds=0.4, step_seconds=step)
    with open_video(path) as video:
        places = plan(video.seconds, video.info.duration_seconds, Uniform(), 4, windows)
    read = list(read_windows(path, clip=CLIP, sampler=Uniform(), windows=windows))
    assert len(read) == len(places) >= 3
    for number, (window, place) in enumerate(zip(read, places, strict=True)):
        alone = frames(path, frames_of(place, Uniform(), 4, windows), short_side=23)
        assert torch.equal(window.video, crops_of(alone, 16, 1)[0])
        assert (window.clip, window.start_seconds) == (number, place.start_seconds)


@pytest.mark.parametrize("name", ["v.mp4", "v.avi"])
@pytest.mark.parametrize("step", [None, 0.08])
def test_a_long_video_is_decoded_once_and_held_a_window_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, step: float | None
) -> None:
    path = write_video(tmp_path / name, 200, gop=500)
    asked: list[int] = []
    decoded = [0]
    plainly, from_key, give = Opened.decoded, seek.decode_from, Sweep.frames

    def counted(frames: Iterator[Any]) -> Iterator[Any]:
        for frame in frames:
            decoded[0] += 1
            yield frame

    def noted(self: Sweep, wanted: Any) -> Any:
        asked.append(len(wanted))
        return give(self, wanted)

    monkeypatch.setattr(Opened, "decoded", lambda self: counted(plainly(self)))
    monkeypatch.setattr(sweep, "decode_from", lambda *where: counted(from_key(*where)))
    monkeypatch.setattr(Sweep, "frames", noted)
    count = sum(
        1 for _ in read_windows(path, clip=CLIP, sampler=Uniform(), windows=Windows(seconds=0.4, step_seconds=step))
    )
    assert count == (20 if step is None else 96)
    scan = 200 if name.endswith("avi") else 0  # AVI packets carry no times: they are found by decoding
    assert decoded[0] <= scan + 1 + 200
    assert max(asked) <= 10
    assert sum(asked) <= 200


@pytest.mark.parametrize("step", [None, 0.08, 0.6])
def test_frames_are_let_go_once_no_window_needs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: float | None
) -> None:
    path = write_video(tmp_path / "v.mp4", 150)
    held, most = [0], [0]
    read = windows_module._read

    def tracked(video: Sweep, numbers: Any, *, size: int) -> Any:
        pictures = read(video, numbers, size=size)
        for picture in pictures.values():
            weakref.finalize(picture, let_go)
        held[0] += len(pictures)
        most[0] = max(most[0], held[0])
        return pictures

    def let_go() -> None:
        held[0] -= 1

    monkeypatch.setattr(windows_module, "_read", tracked)
    windows = Windows(seconds=0.4, step_seconds=step)
    assert sum(1 for _ in read_windows(path, clip=CLIP, sampler=Uniform(), windows=windows)) >= 9
    assert most[0] <= 2 * 10  # of two windows, the one before and this one
    assert held[0] == 0


def lying(monkeypatch: pytest.MonkeyPatch, *, at_call: int) -> None:
    """From this call of `frames` on, files say that their frames come twice as slowly."""
    calls = [0]
    give = VideoFile.frames

    def frames(self: VideoFile, indices: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == at_call:
            self._seconds = self._seconds * 2
        return give(self, indices, **options)

    def lost(self: Sweep, wanted: Any) -> Any:
        raise seek.OutOfStep

    monkeypatch.setattr(Sweep, "_onwards", lost)
    monkeypatch.setattr(VideoFile, "frames", frames)


def test_times_that_turn_out_wrong_at_first_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "v.mp4", 40)
    lying(monkeypatch, at_call=1)
    found = list(read_windows(path, clip=CLIP, sampler=Uniform(), windows=Windows(seconds=0.8)))
    assert [round(window.end_seconds, 6) for window in found] == [0.8, 1.6, 2.4, 3.16]
    assert torch.equal(found[1].video, crops_of(frames(path, [11, 13, 16, 18], short_side=23), 16, 1)[0])


def test_times_that_turn_out_wrong_later_make_the_video_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "v.mp4", 40)
    lying(monkeypatch, at_call=2)
    windows = read_windows(path, clip=CLIP, sampler=Uniform(), windows=Windows(seconds=0.8))
    next(windows)
    with pytest.raises(BadVideo, match="frames come at other times than the file states"):
        next(windows)


def test_reading_forwards_in_many_calls_gives_what_one_call_gives(tmp_path: Path) -> None:
    for name in ("v.mp4", "v.avi", "v.mkv"):
        path = write_video(tmp_path / name, 40, gop=9, b_frames=2)
        with open_video(path) as video:
            together = video.frames(range(40))
            for calls in ([[0, 1], [1, 2], [2, 8], [9, 30], [39]], [[20], [3], [4, 5], [25, 6], [26]], [[39], [0]]):
                for call in calls:
                    assert np.array_equal(video.frames(call), together[call]), (name, call)
        assert numbers_of(together[:3]) == pytest.approx([0, 1, 2], abs=0.4)


def test_a_video_that_fails_half_way_gives_its_first_windows_and_then_says_so(tmp_path: Path) -> None:
    path = damage(write_video(tmp_path / "v.mp4", 60, gop=10))
    windows = read_windows(path, clip=CLIP, sampler=Uniform(), windows=Windows(seconds=0.4))
    assert [next(windows).clip, next(windows).clip] == [0, 1]
    with pytest.raises(BadVideo, match="damaged"):
        list(windows)
