"""The demo's videos: equal for equal seeds, told apart by motion and by nothing that one frame shows."""

from pathlib import Path

import numpy as np
import pytest

from tubelet.data.synthetic.scenes import MOTIONS, SceneMotion, clip_of, render
from tubelet.data.synthetic.videos import SyntheticPlan, file_name, make_dataset
from tubelet.rng import generator
from tubelet.video.lists.manifest import read_manifest
from tubelet.video.read.file import frames, probe

TINY = SyntheticPlan(unlabelled=9, train=8, val=8, test=8, frames=6, size=32)


def test_a_clip_follows_from_seed_and_index() -> None:
    first = clip_of(3, 5, frames=4, size=24)
    assert first.shape == (4, 24, 24, 3)
    assert np.array_equal(first, clip_of(3, 5, frames=4, size=24))
    assert not np.array_equal(first, clip_of(3, 13, frames=4, size=24))
    assert not np.array_equal(first, clip_of(4, 5, frames=4, size=24))


def test_every_class_has_an_opposite() -> None:
    motions = set(MOTIONS.values())
    assert len(motions) == len(MOTIONS) == 8
    assert all(SceneMotion(*(-change for change in motion)) in motions for motion in motions)


@pytest.mark.parametrize(("forth", "back"), [(0, 1), (2, 3), (4, 5), (6, 7)])
def test_played_backwards_a_video_is_of_the_opposite_class(forth: int, back: int) -> None:
    one = render(forth, generator(7), frames=7, size=24).astype(int)
    other = render(back, generator(7), frames=7, size=24).astype(int)
    assert np.abs(one[::-1] - other).max() <= 1  # one for rounding
    assert np.abs(one - other).max() > 20


def test_the_middle_frame_is_the_same_for_every_class() -> None:
    """All draws are made before the class is looked at: what a frame shows is drawn alike for every class."""
    middles = [render(label, generator(11), frames=7, size=24)[3].astype(int) for label in range(len(MOTIONS))]
    assert all(np.abs(middle - middles[0]).max() <= 1 for middle in middles)


def test_one_frame_does_not_tell_the_class() -> None:
    """A ridge classifier on a random frame stays at chance, 1/8 (240 clips to test: 0.2 is 3.5 deviations above)."""
    clips = np.stack([clip_of(0, index, frames=5, size=12) for index in range(960)]) / 255.0
    labels = np.arange(960) % len(MOTIONS)
    which = generator(1).integers(5, size=960)
    still = _accuracy(clips[np.arange(960), which].reshape(960, -1), labels)
    assert still < 0.2


def test_moves_as_its_name_says() -> None:
    """The best shift between two frames, over many clips, points where the class says."""
    for name, axis, sign in (("right", 1, 1), ("left", 1, -1), ("down", 0, 1), ("up", 0, -1)):
        label = list(MOTIONS).index(name)
        shifts = [_shift(render(label, generator(2, n), frames=5, size=48), axis) for n in range(6)]
        assert np.sign(np.mean(shifts)) == sign, (name, shifts)


def test_growing_shows_less_and_less_of_the_scene() -> None:
    grow = render(list(MOTIONS).index("grow"), generator(5), frames=9, size=48).astype(float)
    # The middle of the first frame, enlarged by what the motion says, is the last frame.
    detail = [np.abs(np.diff(frame, axis=0)).mean() for frame in (grow[0], grow[-1])]
    assert detail[1] < detail[0]


def test_the_files_are_real_videos_with_lists(tmp_path: Path) -> None:
    made = make_dataset(tmp_path / "set", TINY, workers=0)
    video = tmp_path / "set" / "videos" / file_name(3)
    info = probe(video)
    assert (info.codec, info.frames, info.width, info.height) == ("h264", 6, 32, 32)
    decoded = frames(video, range(6)).astype(float)
    assert np.abs(decoded - clip_of(0, 3, frames=6, size=32)).mean() < 6
    assert len(read_manifest(made.unlabelled, labelled=False).videos) == 9
    train = read_manifest(made.train, labelled=True).videos
    assert sorted(video.label or 0 for video in train) == list(range(8))
    assert made.classes.read_text().split() == list(MOTIONS)
    everything = [v.path for s in (made.train, made.val, made.test) for v in read_manifest(s, labelled=True).videos]
    unlabelled = [v.path for v in read_manifest(made.unlabelled, labelled=False).videos]
    assert len({*everything, *unlabelled}) == TINY.total


def test_a_finished_set_is_kept_and_a_stopped_one_completed(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    make_dataset(tmp_path, TINY, workers=0)
    video = tmp_path / "videos" / file_name(0)
    before, other = video.read_bytes(), tmp_path / "videos" / file_name(1)
    age = other.stat().st_mtime_ns
    video.unlink()
    make_dataset(tmp_path, TINY, workers=0, on_progress=lambda done, total: told.append((done, total)))
    assert told == [(32, 33), (33, 33)]
    assert video.read_bytes() == before
    assert other.stat().st_mtime_ns == age


def test_processes_make_the_same_files(tmp_path: Path) -> None:
    plan = SyntheticPlan(unlabelled=17, train=8, val=8, test=8, frames=2, size=16)
    make_dataset(tmp_path / "one", plan, workers=0)
    make_dataset(tmp_path / "two", plan, workers=2)
    for file in (tmp_path / "one").rglob("*.mp4"):
        assert (tmp_path / "two" / "videos" / file.name).read_bytes() == file.read_bytes()


def test_a_set_of_another_plan_is_refused(tmp_path: Path) -> None:
    make_dataset(tmp_path, TINY, workers=0)
    with pytest.raises(ValueError, match="another plan"):
        make_dataset(tmp_path, SyntheticPlan(unlabelled=10, train=8, val=8, test=8, frames=6, size=32), workers=0)


def _accuracy(features: np.ndarray, labels: np.ndarray) -> float:
    """Of a ridge classifier trained on the first three quarters."""
    half = len(labels) * 3 // 4
    inputs = np.concatenate([features - features.mean(0), np.ones((len(labels), 1))], 1)
    wanted = np.eye(labels.max() + 1)[labels]
    seen = inputs[:half]
    weights = np.linalg.solve(seen.T @ seen + 10 * np.eye(seen.shape[1]), seen.T @ wanted[:half])
    return float(((inputs[half:] @ weights).argmax(1) == labels[half:]).mean())


def _shift(clip: np.ndarray, axis: int) -> int:
    """Pixels by which the second frame lies further along `axis` than the first, in the middle of the frame."""
    first, second = clip[0].astype(float), clip[1].astype(float)
    errors = {}
    for pixels in range(-6, 7):
        moved = np.roll(first, pixels, axis=axis)
        errors[pixels] = np.abs(moved[8:-8, 8:-8] - second[8:-8, 8:-8]).mean()
    return min(errors, key=lambda pixels: errors[pixels])
