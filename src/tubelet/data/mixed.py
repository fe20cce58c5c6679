"""Training clips from several sources, each sampled and augmented in its own way."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from torch.utils.data import Dataset

from tubelet.data.dataset import ClipDataset, ClipPlan, Sample, Skipped
from tubelet.data.mixture import Mixture, Share
from tubelet.video.augment.augment import Augment
from tubelet.video.lists.manifest import VideoRef
from tubelet.video.sample import Sampler


@dataclass(frozen=True)
class Source:
    """A set of videos among others. `sampler` and `augment` None: as for all."""

    name: str
    videos: tuple[VideoRef, ...]
    weight: float = 1.0
    sampler: Sampler | None = None
    augment: Augment | None = None

    @property
    def share(self) -> Share:
        """Its part of an epoch; ValueError where it has none."""
        return Share(self.name, len(self.videos), self.weight)


class MixedDataset(Dataset[Sample | Skipped]):
    """Clips of several sources; keys are (epoch, place), with the places of `mixture`, of which an epoch takes some.

    The length is that of an epoch. One source of weight 1 gives bit for bit what `ClipDataset` gives.
    """

    def __init__(self, sources: Sequence[Source], plan: ClipPlan) -> None:
        self.sources = tuple(sources)
        self.mixture = Mixture([source.share for source in self.sources], seed=plan.seed)
        self._clips = [ClipDataset(source.videos, _plan_of(source, plan)) for source in self.sources]

    def __len__(self) -> int:
        return len(self.mixture)

    def __getitem__(self, key: tuple[int, int]) -> Sample | Skipped:
        epoch, place = key
        source, index = self.mixture.find(place)
        return self._clips[source].take(index, epoch=epoch, place=place)

    @cached_property
    def videos(self) -> tuple[VideoRef, ...]:
        """The video of each place."""
        shares = zip(self.sources, self.mixture.shares, strict=True)
        return tuple(
            video for source, share in shares for _ in range(share.places // share.videos) for video in source.videos
        )


def shared_videos(sources: Sequence[Source]) -> str | None:
    """A line that says which files are in several sources, which is allowed; None where none is."""
    owners: dict[str, list[str]] = {}
    for source in sources:
        for path in {os.path.abspath(video.path): None for video in source.videos}:
            owners.setdefault(path, []).append(source.name)
    several = {path: names for path, names in owners.items() if len(names) > 1}
    if not several:
        return None
    path, names = next(iter(several.items()))
    return (
        f"{len(several)} {'file is' if len(several) == 1 else 'files are'} in several sources, such as {path} "
        f"({', '.join(names)}): each comes as often as all of them say"
    )


def _plan_of(source: Source, plan: ClipPlan) -> ClipPlan:
    return replace(plan, sampler=source.sampler or plan.sampler, augment=source.augment or plan.augment)
