"""Clips from videos: what a training step and a test are fed with.

Everything that is drawn for a clip follows from (seed, epoch, index, view). A file that cannot be read gives a
`Skipped` with the reason and is never replaced by another one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import or_
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int64, Num, UInt8
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from tubelet.data.cache import FrameCache
from tubelet.masks import HasMaskRules, draw_mask
from tubelet.rng import generator
from tubelet.types import VIDEO, Batch, Clips, ClipShape, Grid, Mask
from tubelet.video.augment.augment import Augment, Placement, test_crops
from tubelet.video.lists.manifest import VideoRef
from tubelet.video.read.decoders import Reading
from tubelet.video.read.errors import BadVideo
from tubelet.video.read.part import VideoPart, open_part
from tubelet.video.read.pixels import reading_short_side
from tubelet.video.sample import Sampler


@dataclass(frozen=True)
class MaskDraw:
    """How the mask of a clip is drawn: by these rules, on this token grid."""

    rules: HasMaskRules
    grid: Grid

    def __call__(self, rng: np.random.Generator) -> Mask:
        """The mask of one clip."""
        return draw_mask(self.rules, self.grid, rng)


LabelOf = Callable[[VideoRef, Sequence[Placement]], Num[Tensor, "V *L"]]
"""Labels of the V clips of a video."""


@dataclass(frozen=True)
class ClipPlan:
    """How clips are taken from videos: `views` clips from each video that is decoded, each with a mask if `masks`.

    Frames with a short side above `short_side` pixels are scaled down to it while they are read. None means 10/7 of the
    clip's size, 320 for 224: the size at which the authors keep Kinetics. `cache` is a folder for decoded frames.
    `reading` says which decoder opens the files, and when it gives one up. `label` gives the labels of the clips of a
    video from where these were cut; without it each has the class of the video.
    """

    clip: ClipShape
    sampler: Sampler
    augment: Augment
    seed: int
    views: int = 1
    masks: MaskDraw | None = None
    cache: Path | None = None
    short_side: int | None = None
    reading: Reading = field(default_factory=Reading)
    label: LabelOf | None = None


@dataclass(frozen=True)
class Skipped:
    """A video that could not be read: its place in the manifest of its stream, its identity, its file, and why."""

    index: int
    name: str
    path: Path
    reason: str
    stream: str = VIDEO


@dataclass(frozen=True)
class Sample:
    """The clips of one video, uint8 [V,C,T,H,W]; masks bool [V,3,t,h,w] (hidden, decoded, scored) and label, if any.

    The label is the class of all clips, or [V, ...] numbers, some for each clip.
    """

    index: int
    video: UInt8[Tensor, "V C T H W"]
    masks: Bool[Tensor, "V 3 t h w"] | None
    label: int | Num[Tensor, "V *L"] | None
    stream: str = VIDEO


@dataclass(frozen=True)
class VideoViews:
    """All test views of one video, uint8 [clips * crops, C, T, H, W], clip by clip."""

    index: int
    video: UInt8[Tensor, "V C T H W"]


@dataclass(frozen=True)
class HostBatch:
    """A batch of what could be read (None if nothing), and what could not."""

    batch: Batch | None
    skipped: tuple[Skipped, ...]

    def pin_memory(self) -> HostBatch:
        """Called by torch's loader, which is why it is here."""
        return self if self.batch is None else replace(self, batch=self.batch.pin_memory())


class ClipDataset(Dataset[Sample | Skipped]):
    """Training clips; keys are (epoch, index)."""

    def __init__(self, videos: Sequence[VideoRef], plan: ClipPlan) -> None:
        self.videos, self.plan = tuple(videos), plan
        self._read = FrameReader(plan.clip, cache=plan.cache, short_side=plan.short_side, reading=plan.reading)

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, key: tuple[int, int]) -> Sample | Skipped:
        epoch, index = key
        return self.take(index, epoch=epoch, place=index)

    def take(self, index: int, *, epoch: int, place: int) -> Sample | Skipped:
        """Clips of the video `index`, drawn and named as the item `place`: among other sets it is another number."""
        plan, video = self.plan, self.videos[index]
        draws = [generator(plan.seed, epoch, place, view) for view in range(plan.views)]

        def choose(total: int) -> Int64[np.ndarray, "V T"]:
            return np.stack([plan.sampler.train(total, plan.clip.frames, draw) for draw in draws])

        try:
            frames, chosen = self._read(video.path, choose, part=video.part)
        except BadVideo as bad:
            return Skipped(place, video.name, video.where, bad.reason)
        placed = [
            plan.augment.placed(_at(frames, at), plan.clip.size, draw) for at, draw in zip(chosen, draws, strict=True)
        ]
        clips = [clip for clip, _ in placed]
        label = video.label if plan.label is None else plan.label(video, [where for _, where in placed])
        masks = None if plan.masks is None else torch.cat([plan.masks(draw).stacked() for draw in draws])
        return Sample(place, clips[0][None] if len(clips) == 1 else torch.stack(clips), masks, label)


class EvalDataset(Dataset[VideoViews | Skipped]):
    """Test views: `clips` in time times `crops` in space of each video; keys are indices. Nothing is drawn."""

    def __init__(
        self,
        videos: Sequence[VideoRef],
        *,
        clip: ClipShape,
        sampler: Sampler,
        clips: int = 1,
        crops: int = 1,
        cache: Path | None = None,
        reading: Reading = Reading(),
    ) -> None:
        self.videos, self.clip, self.sampler = tuple(videos), clip, sampler
        self.clips, self.crops = clips, crops
        self._read = FrameReader(clip, cache=cache, reading=reading)

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> VideoViews | Skipped:
        video = self.videos[index]
        try:
            frames, places = self._read(
                video.path, lambda total: self.sampler.views(total, self.clip.frames, self.clips), part=video.part
            )
        except BadVideo as bad:
            return Skipped(index, video.name, video.where, bad.reason)
        squares = test_crops(frames, self.clip.size, self.crops)
        return VideoViews(index, torch.cat([squares[:, :, torch.from_numpy(place)] for place in places]))


class FrameReader:
    """Reads the frames that several clips need, each frame once, from the file or from the cache."""

    def __init__(
        self, clip: ClipShape, *, cache: Path | None, short_side: int | None = None, reading: Reading = Reading()
    ) -> None:
        self.short_side = reading_short_side(clip.size) if short_side is None else short_side
        self._cache = None if cache is None else FrameCache(cache, short_side=self.short_side, reading=reading)
        self._reading = reading

    def __call__(
        self, path: Path, choose: Callable[[int], Int64[np.ndarray, "V T"]], *, part: VideoPart | None = None
    ) -> tuple[UInt8[np.ndarray, "K H W 3"], Int64[np.ndarray, "V T"]]:
        """`choose` gets the number of frames and gives frame numbers; back come frames, and where each number is.

        Of a `part` alone where one is given: no other frames of the file count.
        """
        kept = None if self._cache is None else self._cache.frames(path, part=part)
        if kept is not None:
            wanted, places = _distinct(choose(len(kept)))
            return np.asarray(kept[wanted]), places
        with open_part(self._reading, path, part) as video:
            wanted, places = _distinct(choose(len(video)))
            return video.frames(wanted, short_side=self.short_side), places


def collate(items: Sequence[Sample | Skipped]) -> HostBatch:
    """A batch of the samples, by stream, views of a video next to each other; skipped videos are handed on beside it.

    In a worker process the clips are put together in shared memory, from which the main process takes them as they are.
    """
    skipped = tuple(item for item in items if isinstance(item, Skipped))
    streams: dict[str, list[Sample]] = {}
    for item in items:
        if isinstance(item, Sample):
            streams.setdefault(item.stream, []).append(item)
    batches = [_batch_of(name, samples) for name, samples in streams.items()]
    return HostBatch(reduce(or_, batches) if batches else None, skipped)


def _batch_of(stream: str, samples: Sequence[Sample]) -> Batch:
    """The samples, all of this stream; labels are only kept where each has one."""
    counts = torch.tensor([len(sample.video) for sample in samples])
    index = torch.tensor([sample.index for sample in samples]).repeat_interleave(counts)
    masks = [sample.masks for sample in samples if sample.masks is not None]
    return Batch(
        clips={stream: Clips(default_collate([clip for sample in samples for clip in sample.video]), index)},
        splits={stream: Mask.unstacked(torch.cat(masks)).split()} if masks else {},
        labels=_labels(samples),
    )


def _labels(samples: Sequence[Sample]) -> Num[Tensor, "B *L"] | None:
    """The labels of all clips; None where a video has none."""
    labels = []
    for sample in samples:
        if sample.label is None:
            return None
        label = sample.label
        labels.append(torch.full((len(sample.video),), label) if isinstance(label, int) else label)
    return torch.cat(labels)


def _at(frames: UInt8[np.ndarray, "K H W 3"], place: Int64[np.ndarray, " T"]) -> UInt8[np.ndarray, "T H W 3"]:
    """The frames at these places; the same array where they are all in order, as for a single clip."""
    return frames if np.array_equal(place, np.arange(len(frames))) else frames[place]


def _distinct(wanted: Int64[np.ndarray, "V T"]) -> tuple[Int64[np.ndarray, " K"], Int64[np.ndarray, "V T"]]:
    distinct, places = np.unique(wanted, return_inverse=True)
    return distinct, places.reshape(wanted.shape).astype(np.int64)
