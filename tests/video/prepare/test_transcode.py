"""A prepared file holds the frames of its source: all of them, in order, at their times, and looking like them."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from video_files import numbers_of, plainly, write_video
from zoo import ZOO, needs_zoo

from tubelet.video.prepare.transcode import Preparation, PreparedFile, part_seconds, transcode
from tubelet.video.read.errors import BadVideo
from tubelet.video.read.file import open_video
from tubelet.video.read.sequence import Shown, at_constant_rate
from tubelet.video.work.scan import examine


def prepare(source: Path, folder: Path, **how: Any) -> tuple[PreparedFile, ...]:
    folder.mkdir(exist_ok=True)
    return transcode(source, lambda number: folder / f"{number}.mp4", Preparation(**how), beat=lambda share: None)


def times(path: Path) -> list[float]:
    with open_video(path) as video:
        return [float(seconds) for seconds in video.seconds]


def all_frames(path: Path, short_side: int | None = None) -> np.ndarray:
    with open_video(path) as video:
        return video.frames(range(len(video)), short_side=short_side)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2)))


def test_all_frames_in_order_at_their_times(tmp_path: Path) -> None:
    """A variable rate with a hole, B-frames, and a clock that starts late."""
    shown_at = [5000 + 40 * index + (700 if index > 9 else 0) + 7 * (index % 3) for index in range(30)]
    source = write_video(tmp_path / "a.mp4", 30, times=shown_at, b_frames=2)
    (part,) = prepare(source, tmp_path / "out")
    assert part.frames == 30
    assert numbers_of(all_frames(part.path)) == pytest.approx(range(30), abs=0.5)
    assert times(part.path) == pytest.approx([(time - shown_at[0]) / 1000 for time in shown_at], abs=1e-9)
    assert [part.start_seconds, part.end_seconds] == pytest.approx([0, times(source)[-1] * 30 / 29])


def test_frames_look_like_scaled_ones(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", 12, size=(202, 98))
    (part,) = prepare(source, tmp_path / "out", short_side=48)
    assert (part.width, part.height) == (98, 48)
    scaled = all_frames(source, short_side=48)[:, :48, :98]
    assert psnr(all_frames(part.path), scaled) > 38


def test_small_videos_are_not_scaled_up_but_made_even(tmp_path: Path) -> None:
    source = tmp_path / "a.mkv"
    with av.open(str(source), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 33, 21, "yuv444p"
        container.mux(stream.encode(av.VideoFrame(33, 21, "yuv444p")))
        container.mux(stream.encode())
    (part,) = prepare(source, tmp_path / "out", short_side=320)
    assert (part.width, part.height) == (32, 20)


def test_short_groups_without_sound_or_cabac(tmp_path: Path) -> None:
    (part,) = prepare(write_video(tmp_path / "a.mp4", 40, gop=40), tmp_path / "out", gop=12)
    with av.open(str(part.path)) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        stream = container.streams.video[0]
        shown = sorted((int(packet.pts or 0), packet.is_keyframe) for packet in container.demux(stream) if packet.size)
    keys = [place for place, (_, is_key) in enumerate(shown) if is_key]
    assert keys[0] == 0
    assert max(later - sooner for sooner, later in pairwise([*keys, len(shown)])) <= 12
    assert b"cabac=0" in part.path.read_bytes()
    assert part.path.read_bytes().index(b"moov") < part.path.read_bytes().index(b"mdat"), "the index is not in front"


def test_the_same_source_gives_the_same_bytes(tmp_path: Path) -> None:
    """x264's mbtree breaks this, for some sizes and now and then: hence the look at the settings."""
    source = write_video(tmp_path / "a.mp4", 20)
    one, other = (prepare(source, tmp_path / name)[0].path.read_bytes() for name in ("one", "other"))
    assert one == other
    assert b"mbtree=0" in one


def test_a_stride_reads_what_a_full_decode_gives(tmp_path: Path) -> None:
    """The reader leaves out frames that no other needs, of which a prepared file has many."""
    (part,) = prepare(write_video(tmp_path / "a.mp4", 50), tmp_path / "out")
    whole = plainly(part.path)
    with open_video(part.path) as video:
        for start in range(4):
            wanted = list(range(start, 50, 4))
            assert np.array_equal(video.frames(wanted), np.stack([whole[index] for index in wanted]))


def test_long_videos_are_cut_into_equal_parts_that_miss_nothing(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", 30)  # 1.2 s
    parts = prepare(source, tmp_path / "out", segment_seconds=0.5)
    assert [part.frames for part in parts] == [10, 10, 10]
    together = np.concatenate([all_frames(part.path) for part in parts])
    assert numbers_of(together) == pytest.approx(range(30), abs=0.5)
    assert [part.start_seconds for part in parts] == pytest.approx([0, 0.4, 0.8])
    assert [part.end_seconds for part in parts] == pytest.approx([0.4, 0.8, 1.2])
    assert times(parts[1].path) == pytest.approx([0.04 * k for k in range(10)])


@pytest.mark.parametrize(
    ("total", "longest", "length"),
    [(10.0, None, None), (10.0, 10.0, 10), (10.5, 10.0, 5.25), (None, 7.0, 7), (3.0, 600.0, 3)],
)
def test_part_seconds(total: float | None, longest: float | None, length: float | None) -> None:
    found = part_seconds(total, longest)
    assert found == length if length is None else float(found or 0) == pytest.approx(length)


def at(rate: int | Fraction, *seconds: float) -> list[float]:
    """Which of the frames shown at these times are on show at each tick."""
    frames = [Shown(place, Fraction(round(time * 1000), 1000)) for place, time in enumerate(seconds)]
    return [shown.frame for shown in at_constant_rate(iter(frames), Fraction(rate), Path("a"))]


def test_constant_rate_shows_what_is_on_show() -> None:
    assert at(10, 0, 0.1, 0.2) == [0, 1, 2]
    assert at(20, 0, 0.1, 0.2) == [0, 0, 1, 1, 2, 2]
    assert at(5, 0, 0.1, 0.2, 0.3) == [0, 2]
    assert at(10, 0, 0.1, 0.5, 0.6) == [0, 1, 1, 1, 1, 2, 3, 3]
    assert at(10, 0) == [0]
    assert at(Fraction(1, 10), 0, 0.1) == [0]


def test_rounded_times_are_on_time() -> None:
    """Matroska has milliseconds: 30 frames a second come at 0, 33, 67, 100."""
    seconds = [round(place / 30, 3) for place in range(60)]
    assert at(30, *seconds) == list(range(60))


def test_constant_rate_does_not_fill_an_hour() -> None:
    with pytest.raises(BadVideo, match="no frame for 3600 seconds"):
        at(30, 0, 3600)


def test_a_constant_rate_in_a_file(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", 6, times=[0, 100, 200, 300, 700, 800])
    (part,) = prepare(source, tmp_path / "out", fps=10)
    assert times(part.path) == pytest.approx([k / 10 for k in range(10)])
    assert numbers_of(all_frames(part.path)) == pytest.approx([0, 1, 2, 3, 3, 3, 3, 4, 5, 5], abs=0.5)


@pytest.mark.parametrize("keep", [0.4, 0.9])
def test_a_damaged_source_leaves_nothing_and_says_what_check_says(tmp_path: Path, keep: float) -> None:
    source = write_video(tmp_path / "a.mp4", 60, options={"movflags": "faststart"})
    whole = source.read_bytes()
    source.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(BadVideo) as caught:
        prepare(source, tmp_path / "out", segment_seconds=0.2)
    assert caught.value.reason == examine(source).reason
    assert list((tmp_path / "out").iterdir()) == []


def test_a_target_that_cannot_be_written_is_no_fault_of_the_source(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", 3)
    with pytest.raises(OSError, match="No such file") as caught:
        transcode(source, lambda number: tmp_path / "nowhere/x.mp4", Preparation(), beat=lambda share: None)
    assert "nowhere" in str(caught.value.filename)


def test_beats_say_how_much_is_done(tmp_path: Path) -> None:
    shares: list[float] = []
    source = write_video(tmp_path / "a.mp4", 200)
    transcode(source, lambda number: tmp_path / "x.mp4", Preparation(), beat=shares.append)
    assert shares == pytest.approx([0.25, 0.5, 0.75, 1.0], abs=0.01)


CASES = [
    "made/vfr.mp4", "made/vfr_gap.webm", "made/edit_list_trim.mp4", "made/start_offset_5s.mkv", "made/xvid.avi",
    "made/raw_stream.h264", "made/odd_127x95_444.mp4", "made/two_video_streams.mkv", "made/ffv1_gray.mkv",
    "made/animated.gif", "made/rawvideo.avi", "native/rotated_90.mov", "native/rotated_180.mov",
    "native/rotated_270.mov", "native/unordered_pts.mov", "native/-video-with-dash-.mp4", "native/hdr10_2x2.mp4",
    "native/h264_10bits.mp4", "native/bt709_full_range.mp4", "native/tiny_8x8.webm", "native/one_frame.gif",
]  # fmt: skip


@needs_zoo
@pytest.mark.parametrize("name", CASES)
def test_odd_files(tmp_path: Path, name: str) -> None:
    """Frames, times, uprightness, range and colour matrix survive."""
    (part,) = prepare(ZOO / name, tmp_path / "out", short_side=120, crf=18)
    with open_video(ZOO / name) as source, open_video(part.path) as made:
        assert len(made) == len(source) == part.frames
        assert made.seconds == pytest.approx(source.seconds, abs=1e-6)
        assert (made.info.width, made.info.height, made.info.rotation) == (part.width, part.height, 0)
        few = np.unique(np.linspace(0, len(source) - 1, 4).astype(int))
        wanted, got = source.frames(few, short_side=120), made.frames(few)
    if min(got.shape[1:3]) < 16:  # too few pixels for colour, which 4:2:0 halves
        return
    wanted = wanted[:, : got.shape[1], : got.shape[2]].astype(float)
    assert wanted.mean((0, 1, 2)) == pytest.approx(got.mean((0, 1, 2)), abs=3)
    assert got.mean(-1).std() == pytest.approx(wanted.mean(-1).std(), rel=0.05, abs=1), "another range"
