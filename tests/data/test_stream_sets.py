"""Several streams of a step: each in its own order, epochs and indices."""

from __future__ import annotations

import os
import signal
from collections import Counter
from typing import Any

import pytest
import torch
from toy_run import CLIP, ToySet
from toy_streams import IMAGE, ImageSet

from tubelet.data.dataset import HostBatch, collate
from tubelet.data.order import StepSampler
from tubelet.data.streams import Key, StreamSampler, StreamSet
from tubelet.data.workers.loader import Loader
from tubelet.types import Batch


def streams(**datasets: Any) -> tuple[StreamSet, ...]:
    sets = {"video": ToySet(), "image": ImageSet(), **datasets}
    return StreamSet("video", sets["video"], 4), StreamSet("image", sets["image"], 8)


def steps(stop: int, *, start: int = 0, workers: int = 0, **datasets: Any) -> list[HostBatch]:
    sets = streams(**datasets)
    sampler = StreamSampler(sets, seed=0, start=start, stop=stop)
    loader = Loader(sets, sampler, workers=workers, device=torch.device("cpu"), seconds_per_file=5.0)
    try:
        return [loader.take().host for _ in range(stop - start)]
    finally:
        loader.close()


def assert_same(one: Batch | None, other: Batch | None, *names: str) -> None:
    assert one is not None
    assert other is not None
    for name in names:
        assert one.clips[name].video.equal(other.clips[name].video)
        assert one.clips[name].index.equal(other.clips[name].index)
        assert one.splits[name].wanted.equal(other.splits[name].wanted)


def test_each_stream_goes_through_its_own_videos_in_its_own_epochs() -> None:
    """14 videos, 4 a step: 3 steps an epoch. 20 images, 8 a step: 2 steps an epoch."""
    keys = [key for step in StreamSampler(streams(), seed=0, start=0, stop=6) for key in step]
    assert [key.stream for key in keys[:12]] == ["video"] * 4 + ["image"] * 8
    for name, epochs, taken in (("video", 2, 12), ("image", 3, 16)):
        for epoch in range(epochs):
            seen = Counter(key.video for key in keys if (key.stream, key.epoch) == (name, epoch))
            assert len(seen) == taken
            assert set(seen.values()) == {1}
        assert {key.epoch for key in keys if key.stream == name} == set(range(epochs))


def test_the_stream_video_is_in_the_order_of_a_run_on_it_alone_and_others_are_in_one_of_their_own() -> None:
    both = StreamSampler(streams(), seed=3, start=2, stop=9)
    alone = StepSampler(14, batch_size=4, seed=3, start=2, stop=9)
    assert [[key[1:] for key in step if key.stream == "video"] for step in both] == list(alone)
    images = StepSampler(20, batch_size=8, seed=3, start=2, stop=9)
    assert [[key[1:] for key in step if key.stream == "image"] for step in both] != list(images)


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_each_stream_of_the_single_process(world: int) -> None:
    whole = list(StreamSampler(streams(), seed=1, start=1, stop=8))
    ranks = [list(StreamSampler(streams(), seed=1, start=1, stop=8, rank=rank, world=world)) for rank in range(world)]
    for step, keys in enumerate(whole):
        assert sorted(key for rank in ranks for key in rank[step]) == sorted(keys)
        for rank in ranks:
            assert Counter(key.stream for key in rank[step]) == {"video": 4 // world, "image": 8 // world}


def test_sizes_that_do_not_fit_are_refused_with_the_field_of_the_stream() -> None:
    few = (streams()[0], StreamSet("image", ImageSet(count=5), 8))
    with pytest.raises(ValueError, match=r"streams\.image\.batch_size 8 is larger than the 5 videos"):
        StreamSampler(few, seed=0, start=0, stop=1)
    odd = (streams()[0], StreamSet("image", ImageSet(), 7))
    with pytest.raises(ValueError, match=r"streams\.image\.batch_size 7 is not a multiple of the 2 processes"):
        StreamSampler(odd, seed=0, start=0, stop=1, world=2)


def test_a_batch_has_clips_of_each_stream_in_their_own_shape() -> None:
    [host] = steps(1)
    assert host.batch is not None
    assert host.batch.sizes == {"video": 4, "image": 8}
    assert host.batch.clips["video"].video.shape[2:] == (CLIP.frames, CLIP.size, CLIP.size)
    assert host.batch.clips["image"].video.shape[2:] == (IMAGE.frames, IMAGE.size, IMAGE.size)
    assert host.batch.splits["image"].hidden is not None
    assert host.batch.splits["image"].hidden.shape == (8, 1, 3, 3)


def test_workers_and_a_start_in_the_middle_do_not_change_a_step() -> None:
    plain, worked, later = steps(5), steps(5, workers=2), steps(5, start=2, workers=1)
    for one, other in [*zip(plain, worked, strict=True), *zip(plain[2:], later, strict=True)]:
        assert_same(one.batch, other.batch, "video", "image")


def test_a_bad_file_of_one_stream_leaves_the_other_as_it_is() -> None:
    """Index 3 is bad among the images alone."""
    plain, broken = steps(6), steps(6, image=ImageSet(bad=(3,)))
    skipped = [one for host in broken for one in host.skipped]
    assert {(one.stream, one.index, str(one.path)) for one in skipped} == {("image", 3, "images/3.jpg")}
    for one, other in zip(plain, broken, strict=True):
        assert_same(one.batch, other.batch, "video")
        assert one.batch is not None
        assert other.batch is not None
        left = one.batch.clips["image"].index.tolist()
        assert other.batch.clips["image"].index.tolist() == [index for index in left if index != 3]


class DeadlyImages(ImageSet):
    """Reading image 3 kills the process."""

    def __getitem__(self, key: tuple[int, int]) -> Any:
        if key[1] == 3:
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().__getitem__(key)


def test_a_file_that_kills_its_reader_is_skipped_in_its_own_stream_only() -> None:
    fed, reference = steps(6, workers=2, image=DeadlyImages()), steps(6, image=ImageSet(bad=(3,)))
    for one, other in zip(fed, reference, strict=True):
        assert_same(one.batch, other.batch, "video", "image")
        assert [(bad.stream, bad.index) for bad in one.skipped] == [(bad.stream, bad.index) for bad in other.skipped]
    assert {bad.reason for one in fed for bad in one.skipped} == {"reading it kills the process (SIGSEGV)"}


def test_a_stream_without_a_readable_file_is_missing_from_the_batch() -> None:
    [host] = steps(1, video=ToySet(bad=tuple(range(14))))
    assert host.batch is not None
    assert host.batch.sizes == {"image": 8}
    assert len(host.skipped) == 4
    assert collate([]).batch is None
    assert Key("image", 1, 2)[1:] == (1, 2)
