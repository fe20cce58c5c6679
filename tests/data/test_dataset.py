"""Clips follow from (seed, epoch, index, view); what cannot be read is named and never replaced."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from video_files import numbers_of, write_video

from tubelet.data import dataset as module
from tubelet.data.dataset import ClipDataset, ClipPlan, EvalDataset, MaskDraw, Sample, Skipped, VideoViews, collate
from tubelet.masks import MaskRules
from tubelet.types import ClipShape, Grid
from tubelet.video.augment.augment import Augment, CentreCrop, Placement, RandomResizedCrop
from tubelet.video.lists.manifest import VideoRef
from tubelet.video.read.decoders import Reading
from tubelet.video.read.file import open_video
from tubelet.video.read.limits import Limits
from tubelet.video.sample import Span, Strided

CLIP = ClipShape(frames=4, size=32)
GRID = Grid(2, 2, 2)


def half(grid: Grid, rng: np.random.Generator) -> Any:
    hidden = np.zeros(grid.tokens, dtype=np.bool_)
    hidden[rng.permutation(grid.tokens)[: grid.tokens // 2]] = True
    return hidden.reshape(grid)


PLAN = ClipPlan(
    clip=CLIP,
    sampler=Strided(stride=2),
    augment=Augment(crop=RandomResizedCrop(), flip=0.5),
    seed=3,
    views=2,
    masks=MaskDraw(MaskRules(mask=half), GRID),
)


@pytest.fixture
def videos(tmp_path: Path) -> tuple[VideoRef, ...]:
    for number in range(3):
        write_video(tmp_path / f"{number}.mp4", 20 + number)
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    names = ["0.mp4", "1.mp4", "broken.mp4", "2.mp4", "missing.mp4"]
    return tuple(VideoRef(tmp_path / name, label, name) for label, name in enumerate(names))


def sample(dataset: ClipDataset, epoch: int, index: int) -> Sample:
    item = dataset[(epoch, index)]
    assert isinstance(item, Sample)
    return item


def same(first: Sample, second: Sample) -> bool:
    assert first.masks is not None
    assert second.masks is not None
    return torch.equal(first.video, second.video) and torch.equal(first.masks, second.masks)


def test_a_sample_follows_from_its_numbers_alone(videos: tuple[VideoRef, ...]) -> None:
    dataset = ClipDataset(videos, PLAN)
    first = sample(dataset, 0, 1)
    sample(dataset, 5, 0)
    assert same(first, sample(pickle.loads(pickle.dumps(dataset)), 0, 1))
    assert not same(first, sample(dataset, 1, 1))
    assert not same(first, sample(ClipDataset(videos, replace(PLAN, seed=4)), 0, 1))
    assert not torch.equal(first.video[0], first.video[1])


def test_views_of_a_video_do_not_depend_on_how_many_there_are(videos: tuple[VideoRef, ...]) -> None:
    one, three = (sample(ClipDataset(videos, replace(PLAN, views=views)), 2, 0) for views in (1, 3))
    assert torch.equal(one.video[0], three.video[0])
    assert one.masks is not None
    assert three.masks is not None
    assert torch.equal(one.masks[0], three.masks[0])


def test_a_video_is_opened_once_for_all_its_views(
    videos: tuple[VideoRef, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []

    def counting(reading: Reading, path: Path) -> Any:
        opened.append(path)
        return open_video(path, limits=reading.limits)

    monkeypatch.setattr(Reading, "open", counting)
    sample(ClipDataset(videos, replace(PLAN, views=4)), 0, 0)
    assert opened == [videos[0].path]


def test_samples_have_the_promised_shapes(videos: tuple[VideoRef, ...]) -> None:
    item = sample(ClipDataset(videos, PLAN), 0, 3)
    assert (item.index, item.label) == (3, 3)
    assert item.video.shape == (2, 3, 4, 32, 32)
    assert item.video.dtype == torch.uint8
    assert item.masks is not None
    assert item.masks.shape == (2, 3, *GRID)
    assert sample(ClipDataset(videos, replace(PLAN, masks=None)), 0, 0).masks is None


def test_bad_files_are_named_with_their_reason(videos: tuple[VideoRef, ...]) -> None:
    dataset = ClipDataset(videos, PLAN)
    items = [dataset[(0, index)] for index in range(5)]
    bad = [item for item in items if isinstance(item, Skipped)]
    assert [(item.index, item.name, item.path) for item in bad] == [
        (2, "broken.mp4", videos[2].path),
        (4, "missing.mp4", videos[4].path),
    ]
    assert "no such file" in bad[1].reason
    loaded = collate(items)
    assert loaded.skipped == tuple(bad)
    assert loaded.batch is not None
    assert loaded.batch.clips["video"].index.tolist() == [0, 0, 1, 1, 3, 3]
    assert loaded.batch.labels is not None
    assert loaded.batch.labels.tolist() == [0, 0, 1, 1, 3, 3]
    assert loaded.batch.splits["video"].seen.shape == (6, 4)
    assert loaded.batch.sizes == {"video": 6}
    assert collate(bad).batch is None
    assert collate(bad).pin_memory().skipped == tuple(bad)
    assert pickle.loads(pickle.dumps(loaded)).skipped == tuple(bad)


def test_collate_without_labels_or_masks(videos: tuple[VideoRef, ...]) -> None:
    unlabelled = tuple(replace(video, label=None) for video in videos)
    dataset = ClipDataset(unlabelled, replace(PLAN, masks=None, views=1))
    batch = collate([dataset[(0, 0)], dataset[(0, 1)]]).batch
    assert batch is not None
    assert batch.labels is None
    assert batch.splits == {}
    assert batch.clips["video"].video.shape == (2, 3, 4, 32, 32)


def test_masks_reach_the_split_in_order(videos: tuple[VideoRef, ...]) -> None:
    dataset = ClipDataset(videos, PLAN)
    item = sample(dataset, 0, 0)
    batch = collate([item]).batch
    assert batch is not None
    assert item.masks is not None
    for view in range(2):
        hidden = item.masks[view, 0].flatten()
        assert batch.splits["video"].seen[view].tolist() == (~hidden).nonzero()[:, 0].tolist()
        assert batch.splits["video"].wanted[view].tolist() == hidden.nonzero()[:, 0].tolist()


def test_cached_clips_are_the_same(videos: tuple[VideoRef, ...], tmp_path: Path) -> None:
    cached = ClipDataset(videos, replace(PLAN, cache=tmp_path / "cache"))
    for _ in range(2):  # once written, once read
        assert same(sample(cached, 1, 3), sample(ClipDataset(videos, PLAN), 1, 3))
        bad = cached[(0, 2)], cached[(0, 4)]
        assert bad == tuple(ClipDataset(videos, PLAN)[(0, index)] for index in (2, 4))
    arguments: dict[str, Any] = {"clip": CLIP, "sampler": Span(stride=2), "clips": 2, "crops": 3}
    plain, kept = (EvalDataset(videos, **arguments, cache=cache)[1] for cache in (None, tmp_path / "cache"))
    assert isinstance(plain, VideoViews)
    assert isinstance(kept, VideoViews)
    assert torch.equal(plain.video, kept.video)


def test_eval_views_are_clips_times_crops_of_the_right_frames(videos: tuple[VideoRef, ...]) -> None:
    sampler = Span(stride=2)
    item = EvalDataset(videos, clip=CLIP, sampler=sampler, clips=3, crops=2)[0]
    assert isinstance(item, VideoViews)
    assert item.video.shape == (6, 3, 4, 32, 32)
    right_crops = item.video[1::2].permute(0, 2, 3, 4, 1).numpy()
    for clip, indices in zip(right_crops, sampler.views(20, 4, 3), strict=True):
        np.testing.assert_allclose(numbers_of(clip), indices, atol=0.6)
    one = EvalDataset(videos, clip=CLIP, sampler=sampler)[0]
    assert isinstance(one, VideoViews)
    assert one.video.shape == (1, 3, 4, 32, 32)
    assert isinstance(EvalDataset(videos, clip=CLIP, sampler=sampler)[2], Skipped)


def test_training_clips_hold_the_sampled_frames(videos: tuple[VideoRef, ...]) -> None:
    plan = replace(PLAN, augment=Augment(crop=CentreCrop()), sampler=Strided(stride=3))
    clip = sample(ClipDataset(videos, plan), 0, 0).video[0].permute(1, 2, 3, 0).numpy()
    np.testing.assert_allclose(np.diff(numbers_of(clip)), 3, atol=0.6)


def test_large_frames_are_scaled_down_while_reading(tmp_path: Path) -> None:
    video = VideoRef(write_video(tmp_path / "big.mp4", 6, size=(320, 240)), None, "big.mp4")
    read = module.FrameReader(CLIP, cache=None)
    frames, places = read(video.path, lambda total: np.array([[0, 2, 2, 4]]))
    assert frames.shape == (3, 46, 61, 3)
    assert places.tolist() == [[0, 1, 1, 2]]


def test_workers_put_a_batch_together_in_shared_memory(videos: tuple[VideoRef, ...]) -> None:
    """Else it would be copied once more on its way to the main process."""

    def is_shared(items: list[Any]) -> bool:
        batch = collate(items).batch
        assert batch is not None
        return bool(batch.clips["video"].video.is_shared())

    dataset: Any = ClipDataset(videos, PLAN)
    for workers in (0, 1):
        loader = DataLoader(dataset, batch_sampler=[[(0, 0), (0, 1)]], collate_fn=is_shared, num_workers=workers)
        assert list(loader) == [workers > 0]


def test_frames_of_a_single_clip_are_not_copied(videos: tuple[VideoRef, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    read = module.FrameReader(CLIP, cache=None)
    given: list[Any] = []

    def remember(path: Path, choose: Any, part: Any) -> Any:
        given.append(read(path, choose, part=part))
        return given[-1]

    def augmented(self: Augment, frames: Any, size: int, rng: np.random.Generator) -> tuple[torch.Tensor, Placement]:
        given.append(frames)
        return torch.zeros(3, 4, 32, 32, dtype=torch.uint8), Placement(0, 0, 1, 1, (1, 1))

    monkeypatch.setattr(Augment, "placed", augmented)
    for views in (1, 2):
        dataset = ClipDataset(videos, replace(PLAN, views=views))
        monkeypatch.setattr(dataset, "_read", remember)
        given.clear()
        sample(dataset, 0, 0)
        assert (given[1] is given[0][0]) == (views == 1)


def test_a_file_over_its_limits_is_skipped_with_the_reason(videos: tuple[VideoRef, ...], tmp_path: Path) -> None:
    for cache in (None, tmp_path / "cache"):
        item = ClipDataset(videos, replace(PLAN, reading=Reading(limits=Limits(seconds=0.0)), cache=cache))[(0, 1)]
        assert isinstance(item, Skipped)
        assert item.reason == "not read within 0 seconds"
        view = EvalDataset(videos, clip=CLIP, sampler=Span(), reading=Reading(limits=Limits(pixels=100)))[0]
        assert isinstance(view, Skipped)
        assert "64x48" in view.reason
