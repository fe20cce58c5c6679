"""Several sources in one epoch: who comes how often, with which draws, and that one source alone changes nothing."""

from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from video_files import numbers_of, write_video

from tubelet.data.dataset import ClipDataset, ClipPlan, Sample, Skipped
from tubelet.data.mixed import MixedDataset, Source, shared_videos
from tubelet.data.mixture import Mixture, Share
from tubelet.data.order import StepSampler
from tubelet.types import ClipShape
from tubelet.video.augment.augment import Augment, CentreCrop, RandomResizedCrop
from tubelet.video.lists.manifest import VideoRef
from tubelet.video.sample import Strided

PLAN = ClipPlan(
    clip=ClipShape(frames=4, size=32),
    sampler=Strided(stride=2),
    augment=Augment(crop=RandomResizedCrop(), flip=0.5),
    seed=3,
    views=2,
)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> tuple[VideoRef, ...]:
    folder = tmp_path_factory.mktemp("videos")
    return tuple(VideoRef(write_video(folder / f"{n}.mp4", 24), None, f"{n}.mp4") for n in range(3))


def sample(dataset: ClipDataset | MixedDataset, epoch: int, place: int) -> Sample:
    item = dataset[(epoch, place)]
    assert isinstance(item, Sample)
    return item


def mixture(*shares: tuple[int, float], seed: int = 0) -> Mixture:
    return Mixture([Share(f"s{n}", videos, float(weight)) for n, (videos, weight) in enumerate(shares)], seed=seed)


def came(mix: Mixture, epochs: int) -> Counter[tuple[int, int]]:
    """How often each (source, video) comes in the first epochs."""
    return Counter(mix.find(int(place)) for epoch in range(epochs) for place in mix.places(epoch))


def test_a_weight_is_how_often_a_video_comes_in_an_epoch() -> None:
    mix = mixture((5, 1), (3, 2), (8, 0.25), (4, 1.5))
    assert len(mix) == 5 + 6 + 2 + 6
    for epoch in range(6):
        places = mix.places(epoch)
        assert len(places) == len(set(places.tolist())) == len(mix)
        times = Counter(mix.find(int(place)) for place in places)
        assert [times[(0, video)] for video in range(5)] == [1] * 5
        assert [times[(1, video)] for video in range(3)] == [2] * 3
        assert sum(times[(2, video)] for video in range(8)) == 2
        assert sorted(times[(3, video)] for video in range(4)) == [1, 1, 2, 2]


@pytest.mark.parametrize(("videos", "weight"), [(8, 0.25), (10, 0.3), (7, 0.5), (4, 1.5), (5, 2.4), (9, 0.9)])
def test_parts_of_a_source_take_turns_until_all_have_come_equally_often(videos: int, weight: float) -> None:
    mix = mixture((3, 1), (videos, weight), seed=5)
    for epochs in (1, 2, 4, 13):
        times = came(mix, epochs)
        each = [times[(1, video)] for video in range(videos)]
        assert max(each) - min(each) <= 1
        assert sum(each) == epochs * round(weight * videos)
    first, second = (set(mix.places(epoch).tolist()) for epoch in (0, 1))
    assert first != second


def test_a_quarter_of_the_videos_is_another_each_time_and_all_come_in_four_epochs() -> None:
    mix = mixture((12, 0.25))
    quarters = [{mix.find(int(place))[1] for place in mix.places(epoch)} for epoch in range(4)]
    assert set().union(*quarters) == set(range(12))
    assert sum(map(len, quarters)) == 12
    assert quarters[0] != set(range(3))
    assert [set(mixture((12, 0.25), seed=1).places(0).tolist())] != [quarters[0]]
    assert set(mix.places(4).tolist()) == quarters[0]


@pytest.mark.parametrize(("videos", "weight"), [(3, 0.0), (3, -1.0), (3, 0.1), (0, 1.0)])
def test_a_source_that_gives_nothing_is_refused(videos: int, weight: float) -> None:
    with pytest.raises(ValueError, match=r"source s: weight .* leaves none of them in an epoch"):
        Share("s", videos, weight)


def test_lines_say_what_each_source_gives() -> None:
    assert mixture((30, 1), (20, 0.5)).lines() == [
        "source s0: 30 videos, weight 1: 30 an epoch, 75.0% of it",
        "source s1: 20 videos, weight 0.5: 10 an epoch, 25.0% of it",
    ]


def test_one_source_of_weight_one_is_bit_for_bit_the_plain_set(videos: tuple[VideoRef, ...]) -> None:
    plain, mixed = ClipDataset(videos, PLAN), MixedDataset([Source("all", videos)], PLAN)
    assert len(mixed) == len(plain)
    assert mixed.videos == plain.videos
    for epoch in range(2):
        for place in range(len(plain)):
            one, other = sample(plain, epoch, place), sample(mixed, epoch, place)
            assert torch.equal(one.video, other.video)
            assert one.index == other.index
    steps = [list(StepSampler(count, batch_size=2, seed=4, start=1, stop=5)) for count in (3, mixed.mixture)]
    assert steps[0] == steps[1]


def test_a_second_coming_is_another_clip_of_the_same_video(videos: tuple[VideoRef, ...]) -> None:
    mixed = MixedDataset([Source("once", videos[:1]), Source("twice", videos[1:], weight=2.0)], PLAN)
    assert [video.name for video in mixed.videos] == ["0.mp4", "1.mp4", "2.mp4", "1.mp4", "2.mp4"]
    assert not torch.equal(sample(mixed, 0, 1).video, sample(mixed, 0, 3).video)
    again = pickle.loads(pickle.dumps(mixed))
    assert torch.equal(sample(again, 0, 3).video, sample(mixed, 0, 3).video)
    assert sample(mixed, 0, 3).index == 3


def test_each_source_is_sampled_in_its_own_way(videos: tuple[VideoRef, ...]) -> None:
    plan = replace(PLAN, views=1, augment=Augment(crop=CentreCrop()), sampler=Strided(stride=4))
    sources = [Source("wide", videos[:1]), Source("dense", videos[1:], sampler=Strided(stride=2))]
    mixed = MixedDataset(sources, plan)
    for place, stride in ((0, 4), (1, 2), (2, 2)):
        clip = sample(mixed, 0, place).video[0].permute(1, 2, 3, 0).numpy()
        np.testing.assert_allclose(np.diff(numbers_of(clip)), stride, atol=0.6)
    own = Augment(crop=RandomResizedCrop(scale=(0.05, 0.1)))
    changed = MixedDataset([sources[0], replace(sources[1], augment=own)], plan)
    assert torch.equal(sample(mixed, 0, 0).video, sample(changed, 0, 0).video)
    assert not torch.equal(sample(mixed, 0, 1).video, sample(changed, 0, 1).video)


def test_ranks_and_a_start_within_an_epoch_see_the_steps_of_one_process() -> None:
    mix = mixture((9, 1), (8, 0.5), (3, 2))
    options: dict[str, int] = {"batch_size": 6, "seed": 1, "stop": 9}
    whole = list(StepSampler(mix, start=0, **options))
    assert len({key for step in whole[:3] for key in step}) == 18
    for start in (1, 4):
        assert list(StepSampler(mix, start=start, **options)) == whole[start:]
    ranks = [list(StepSampler(mix, start=0, rank=rank, world=3, **options)) for rank in range(3)]
    for number, step in enumerate(whole):
        assert sorted(key for steps in ranks for key in steps[number]) == sorted(step)


def test_a_skipped_video_is_named_by_its_place(videos: tuple[VideoRef, ...], tmp_path: Path) -> None:
    bad = VideoRef(tmp_path / "none.mp4", None, "none.mp4")
    mixed = MixedDataset([Source("good", videos), Source("bad", (bad,), weight=2.0)], PLAN)
    item = mixed[(0, 4)]
    assert isinstance(item, Skipped)
    assert (item.index, item.path, mixed.mixture.source_of(item.index)) == (4, bad.path, "bad")
    assert mixed.videos[4] == bad


def test_files_in_several_sources_are_said(videos: tuple[VideoRef, ...]) -> None:
    assert shared_videos([Source("a", videos[:1]), Source("b", videos[1:])]) is None
    line = shared_videos([Source("a", videos[:2]), Source("b", videos[1:])])
    assert line is not None
    assert "1 file is in several sources" in line
    assert f"{videos[1].path} (a, b)" in line
