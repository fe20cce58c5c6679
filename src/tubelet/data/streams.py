"""Streams: several sets of clips that a run learns from side by side, so many clips of each in every step.

Each stream has its own clip shape, order, epochs and indices. An epoch of the run is that of the first stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from tubelet.data.mixture import Mixture
from tubelet.data.order import BATCH_SIZE, StepSampler, rank_rows, steps_per_epoch
from tubelet.rng import stream_seed
from tubelet.types import VIDEO
from tubelet.video.lists.manifest import VideoRef


@runtime_checkable
class TrainingSet(Protocol):
    """A data set read by (epoch, index) keys; `videos` are in the order of the indices.

    An epoch takes as many of them as its length: each once, unless a mixture chooses (`tubelet.data.mixture`).
    """

    @property
    def videos(self) -> Sequence[VideoRef]:
        """The video of each index."""

    def __len__(self) -> int:
        """How many videos an epoch takes."""

    def __getitem__(self, key: tuple[int, int]) -> Any:
        """What `tubelet.data.dataset.collate` takes: a sample, or why there is none."""


class Key(NamedTuple):
    """Names a video of a step: by its index in its stream, and an epoch of the stream."""

    stream: str
    epoch: int
    video: int


@dataclass(frozen=True)
class StreamSet:
    """A stream: its `dataset`, and `batch_size` of its videos in a step, over all ranks.

    `weight` is that of its loss in the loss of a step. `mixture` says which videos of a dataset of several sources an
    epoch takes. More than the share `max_skipped` of its videos unreadable end the run.
    """

    name: str
    dataset: TrainingSet
    batch_size: int
    mixture: Mixture | None = None
    weight: float = 1.0
    max_skipped: float = 1.0

    @property
    def video_count(self) -> int:
        """Different videos."""
        if self.mixture is None:
            return len(self.dataset.videos)
        return sum(share.videos for share in self.mixture.shares)

    @property
    def fields(self) -> tuple[str, str]:
        """What a recipe calls its `batch_size` and its `max_skipped`: for messages."""
        if self.name == VIDEO:
            return BATCH_SIZE, "data.max_skipped"
        return f"streams.{self.name}.batch_size", f"streams.{self.name}.data.max_skipped"


class StreamSampler:
    """Keys of one step after the other, from step `start` + 1 to `stop`: stream by stream, of each in its own order.

    `seed` is that of the run. Each rank gets its own videos of every stream. ValueError where a stream has too few
    videos for a step, or they cannot be shared by the ranks.
    """

    def __init__(
        self, streams: Sequence[StreamSet], *, seed: int, start: int, stop: int, rank: int = 0, world: int = 1
    ) -> None:
        self.start, self.stop = start, stop
        self.streams: dict[str, StepSampler] = {}
        for one in streams:
            size, field = one.batch_size, one.fields[0]
            steps_per_epoch(len(one.dataset), size, field=field)
            rank_rows(size, rank=rank, world=world, field=field)
            self.streams[one.name] = StepSampler(
                len(one.dataset) if one.mixture is None else one.mixture,
                batch_size=size,
                seed=stream_seed(seed, one.name),
                start=start,
                stop=stop,
                rank=rank,
                world=world,
            )

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[Key]]:
        for step in range(self.start, self.stop):
            yield [Key(name, *key) for name, sampler in self.streams.items() for key in sampler.keys(step)]
