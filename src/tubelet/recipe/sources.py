"""Several sets of videos in one run, each with its own weight, sampling and labels (docs/mixed-data.md)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from tubelet.spec import Spec
from tubelet.video.augment import Augment
from tubelet.video.sample import Sampler

Name = Annotated[str | None, Field(min_length=1, description="what messages call it; none: from its path")]
Weight = Annotated[
    float, Field(gt=0, description="how often each of its videos comes in an epoch: 2 twice, 0.25 in every fourth")
]
OwnSampler = Annotated[Sampler | None, Field(description="none: data.sampler")]
OwnAugment = Annotated[Augment | None, Field(description="none: data.augment")]


class VideoSource(Spec):
    """One of several sets of unlabelled videos."""

    videos: str = Field(description="folder of videos, or a list (txt, csv, jsonl)")
    root: str | None = Field(default=None, description="folder that the paths of the list start from; none: data.root")
    name: Name = None
    weight: Weight = 1.0
    sampler: OwnSampler = None
    augment: OwnAugment = None
    segment_seconds: float | None = Field(
        default=None, gt=0, description="cut longer videos into pieces of about this length, each a video of its own"
    )


class LabelledSource(Spec):
    """One of several sets of labelled videos, whose classes are matched by name."""

    train: str
    val: str | None = None
    root: str | None = Field(default=None, description="folder that the paths of the lists start from; none: data.root")
    name: Name = None
    class_names: str | None = Field(default=None, description="file with one class name a line; needed for numbers")
    weight: Weight = 1.0
    sampler: OwnSampler = None
    augment: OwnAugment = None
    renames: str | None = Field(
        default=None, description="csv file of `name in this source,name in the merged space` lines"
    )


def source_names(sources: Sequence[VideoSource | LabelledSource]) -> tuple[str, ...]:
    """The name of each source: as given, else the last part of its path, or the whole path where that is not enough.

    ValueError where two sources have one name all the same.
    """
    short = [source.name or Path(_path(source)).stem for source in sources]
    counts = Counter(short)
    names = [
        name if source.name is not None or counts[name] == 1 else _path(source)
        for source, name in zip(sources, short, strict=True)
    ]
    again = [name for name, count in Counter(names).items() if count > 1]
    if again:
        raise ValueError(f"two of data.sources are called {again[0]!r}; give each another name")
    return tuple(names)


def check_sources(sources: Sequence[VideoSource | LabelledSource], others: dict[str, str | None]) -> None:
    """ValueError where one of the fields `others` is given beside `sources`, or names are not unique."""
    given = [name for name, value in others.items() if value is not None]
    if sources and given:
        raise ValueError(f"data.{given[0]} and data.sources are both given; keep one of them")
    source_names(sources)


def _path(source: VideoSource | LabelledSource) -> str:
    return source.videos if isinstance(source, VideoSource) else source.train
