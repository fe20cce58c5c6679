"""Long videos in pieces: each frame in one piece, nothing outside a piece is read, the cache keeps pieces apart."""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from video_files import numbers_of, write_video

from tubelet.data.dataset import ClipDataset, ClipPlan, EvalDataset, Sample, Skipped, VideoViews
from tubelet.types import ClipShape
from tubelet.video.augment.augment import Augment, CentreCrop
from tubelet.video.lists.cut import Length, length_of, lengths, pieces
from tubelet.video.lists.manifest import VideoRef
from tubelet.video.read.decoders import Reading
from tubelet.video.read.errors import BadVideo
from tubelet.video.read.file import VideoFile, open_video
from tubelet.video.read.info import between_at_rate
from tubelet.video.read.part import PartOfVideo, VideoPart, open_part, parts_of
from tubelet.video.sample import Strided

PLAN = ClipPlan(
    clip=ClipShape(frames=4, size=32), sampler=Strided(stride=1), augment=Augment(crop=CentreCrop()), seed=0
)


@pytest.fixture(scope="module")
def movie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 frames at 25 a second: 1.2 seconds."""
    return write_video(tmp_path_factory.mktemp("movies") / "movie.mp4", 30, b_frames=2)


def silent(done: float) -> None:
    pass


@pytest.mark.parametrize(
    ("seconds", "ends"),
    [(900.0, [300, 600, inf]), (740.0, [300, inf]), (760.0, [300, 600, inf]), (450.0, [300, inf])],
)
def test_pieces_follow_each_other_and_the_last_takes_the_rest(seconds: float, ends: list[float]) -> None:
    parts = [part for part in parts_of(seconds, 300.0) if part is not None]
    assert [part.end_seconds for part in parts] == ends
    assert [part.start_seconds for part in parts] == [0.0, *ends[:-1]]
    assert [str(part) for part in parts] == [f"#{number:04d}" for number in range(1, len(ends) + 1)]


@pytest.mark.parametrize("seconds", [0.0, 10.0, 300.0, 449.0])
def test_a_video_that_is_too_short_for_two_stays_whole(seconds: float) -> None:
    assert parts_of(seconds, 300.0) == (None,)


def test_every_frame_is_in_one_piece(movie: Path) -> None:
    with open_video(movie) as video:
        parts = [PartOfVideo(video, part) for part in parts_of(1.2, 0.4) if part is not None]
        assert [len(part) for part in parts] == [10, 10, 10]
        found = np.concatenate([part.frames(range(len(part))) for part in parts])
        assert np.array_equal(found, video.frames(range(30)))
        assert parts[1].info.frames == 10
        assert parts[1].info.fps == video.info.fps
        for outside in ([-1], [10], []):
            with pytest.raises(IndexError):
                parts[0].frames(outside)


def test_a_piece_follows_the_times_of_the_frames_not_their_number(tmp_path: Path) -> None:
    """Half of the frames come in the first tenth of the time."""
    times = [*range(0, 100, 10), *range(100, 1000, 90)]
    path = write_video(tmp_path / "uneven.mp4", len(times), times=times)
    with open_video(path) as video:
        assert len(PartOfVideo(video, VideoPart(1, 0.0, 0.5))) == sum(time < 500 for time in times)
        assert len(PartOfVideo(video, VideoPart(2, 0.5, inf))) == sum(time >= 500 for time in times)


def test_clips_of_a_piece_come_from_the_piece_alone(
    movie: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = VideoRef(movie, None, "movie.mp4")
    cut = pieces([whole], [Length(1.2)], 0.4)
    assert [video.name for video in cut] == ["movie.mp4#0001", "movie.mp4#0002", "movie.mp4#0003"]
    assert [video.where.name for video in cut] == [video.name for video in cut]
    read: list[int] = []
    frames = VideoFile.frames

    def noting(self: VideoFile, indices: Any, **options: Any) -> Any:
        read.extend(int(index) for index in indices)
        return frames(self, indices, **options)

    monkeypatch.setattr(VideoFile, "frames", noting)
    seen = set()
    for epoch in range(8):
        item = ClipDataset(cut, PLAN)[(epoch, 1)]
        assert isinstance(item, Sample)
        seen |= {round(number) for number in numbers_of(item.video[0].permute(1, 2, 3, 0).numpy())}
    assert seen <= set(range(10, 20))
    assert len(seen) > 4
    assert set(read) <= set(range(10, 20))
    view = EvalDataset(cut, clip=PLAN.clip, sampler=PLAN.sampler)[2]
    assert isinstance(view, VideoViews)
    assert set(read) - set(range(10, 20)) <= set(range(20, 30))
    cached = ClipDataset(cut, ClipPlan(**{**vars(PLAN), "cache": tmp_path}))
    for place in (0, 1, 2, 1):
        plain, kept = ClipDataset(cut, PLAN)[(0, place)], cached[(0, place)]
        assert isinstance(plain, Sample)
        assert isinstance(kept, Sample)
        assert plain.video.equal(kept.video)
    assert len(list(tmp_path.rglob("*.npy"))) == 3


def test_a_piece_without_frames_is_skipped_and_named(movie: Path) -> None:
    """A header may promise more than there is."""
    cut = pieces([VideoRef(movie, None, "movie.mp4")], [Length(4.0)], 1.0)
    assert len(cut) == 4
    item = ClipDataset(cut, PLAN)[(0, 2)]
    assert item == Skipped(2, "movie.mp4#0003", movie.with_name("movie.mp4#0003"), "no frame from 2 s to 3 s")
    with pytest.raises(BadVideo, match="no frame from 3 s to the end"), open_part(Reading(), movie, cut[3].part):
        pass


def test_lengths_are_looked_up_without_decoding(movie: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> Any:
        raise AssertionError("decoded")

    monkeypatch.setattr("tubelet.video.read.opened.Opened.decoded", refuse)
    assert length_of(movie, silent).seconds == pytest.approx(1.2, abs=0.05)
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 20)
    bad = length_of(tmp_path / "broken.mp4", silent)
    assert bad.seconds is None
    assert "cannot be opened" in bad.reason


def test_files_are_looked_at_side_by_side_and_a_bad_one_stays_in_one_piece(movie: Path, tmp_path: Path) -> None:
    told: list[int] = []
    paths = [movie, tmp_path / "none.mp4", movie]
    found = lengths(paths, workers=2, limit_seconds=60.0, on_progress=told.append)
    assert told == [1, 2, 3]
    assert [one.seconds is None for one in found] == [False, True, False]
    cut = pieces([VideoRef(path, None, path.name) for path in paths], found, 0.4)
    assert [video.name for video in cut] == [f"movie.mp4#000{n}" for n in (1, 2, 3)] + ["none.mp4"] + [
        f"movie.mp4#000{n}" for n in (1, 2, 3)
    ]


@pytest.mark.parametrize("each", [0.4, 0.25, 0.33])
def test_times_and_a_constant_rate_cut_at_the_same_frames(movie: Path, each: float) -> None:
    """torchcodec tells a rate and no times."""
    for part in parts_of(1.2, each):
        assert part is not None
        first, stop = between_at_rate(25.0, 30, part.start_seconds, part.end_seconds)
        with open_video(movie) as video, open_part(Reading(), movie, part) as cut:
            assert np.array_equal(cut.frames(range(len(cut))), video.frames(range(first, stop)))


def test_a_folder_of_images_is_cut_too(tmp_path: Path) -> None:
    """Its images count as 30 a second."""
    for number in range(1, 31):
        picture = np.full((24, 32, 3), 20 + 6 * number, dtype=np.uint8)
        with av.open(str(tmp_path / f"img_{number:05d}.png"), "w", format="image2") as out:
            stream: Any = out.add_stream("png", rate=1)
            stream.width, stream.height, stream.pix_fmt = 32, 24, "rgb24"
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            out.mux(stream.encode())
    assert length_of(tmp_path, silent).seconds == pytest.approx(1.0)
    with open_video(tmp_path) as video:
        parts = [PartOfVideo(video, part) for part in parts_of(1.0, 0.5) if part is not None]
        assert [len(part) for part in parts] == [15, 15]
        assert np.array_equal(parts[1].frames([0]), video.frames([15]))
