"""Where the videos of a run come from, and how clips are taken from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from tubelet.masks import DecodeRule, LossOn, MaskRule
from tubelet.spec import Spec
from tubelet.targets.unions import AnyTarget
from tubelet.types import VIDEO, ClipShape
from tubelet.video.augment.augment import Augment, MultiScaleCrop, RandomResizedCrop
from tubelet.video.read.decoders import Decoder, Reading
from tubelet.video.read.limits import Limits
from tubelet.video.sample import Sampler, Span, Strided

ClipsPerVideo = Annotated[int, Field(ge=1, description="clips taken from one decoded video (repeated augmentation)")]
Cache = Annotated[str | None, Field(description="folder for decoded frames; for sets that fit on the disk")]
DecodedBy = Annotated[Decoder, Field(description="what decodes; torchcodec and nvdec are optional extras")]
Workers = Annotated[int, Field(ge=0, description="processes that decode")]
LargestSkip = Annotated[float, Field(ge=0, le=1, description="largest share of unreadable videos")]
FileSeconds = Annotated[
    float | None, Field(gt=0, description="time after which a file that is still being read counts as unreadable")
]


class Data(Spec):
    """Unlabelled videos for pre-training, and how clips are taken from them."""

    videos: str | None = Field(default=None, description="folder of videos, or a list (txt, csv, jsonl)")
    root: str | None = Field(default=None, description="folder that the paths of a list start from")
    sources: tuple[VideoSource, ...] = Field(default=(), description="several sets instead of `videos`")
    sampler: Sampler = Strided(stride=4)
    augment: Augment = Augment(crop=MultiScaleCrop())
    views: ClipsPerVideo = 1
    cache: Cache = None
    decoder: DecodedBy = "pyav"
    workers: Workers = 2
    max_skipped: LargestSkip = 0.25
    max_seconds_per_file: FileSeconds = 120.0

    @model_validator(mode="after")
    def _check_sources(self) -> Data:
        check_sources(self.sources, {"videos": self.videos})
        return self


class Stream(Spec):
    """A further stream of clips that a run learns from in each step, beside the recipe's own, which is "video".

    Fields that are none are as the recipe says them for "video". `run.accumulate`, `data.workers` and the schedule are
    those of the recipe: an epoch is one of "video", and this stream goes through its own videos in epochs of its own.
    """

    data: Data = Field(description="its videos or images; data.workers of the recipe read them")
    batch_size: int = Field(ge=1, description="videos of this stream in an optimiser step, over all devices")
    weight: float = Field(default=1.0, gt=0, description="of its loss; that of the stream video is 1")
    clip: ClipShape | None = None
    mask: MaskRule | None = None
    decode: DecodeRule | None = None
    loss_on: LossOn | None = None
    target: AnyTarget | None = None

    @model_validator(mode="after")
    def _has_videos(self) -> Stream:
        if self.data.videos is None and not self.data.sources:
            raise ValueError("data of a stream must say what to train on: set its data.videos to a folder or a list")
        return self


def _not_the_first(streams: dict[str, Stream]) -> dict[str, Stream]:
    if VIDEO in streams:
        raise ValueError(f"the stream {VIDEO} is what data, clip, mask, ... of the recipe say: choose a different name")
    return streams


Streams = Annotated[
    dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Stream],
    AfterValidator(_not_the_first),
    Field(description="further streams by name; none: the videos of data are all"),
]


class LabelledData(Spec):
    """Labelled videos for fine-tuning: lists of `path label`, or folders with one sub-folder a class."""

    train: str | None = None
    val: str | None = None
    root: str | None = Field(default=None, description="folder that the paths of the lists start from")
    class_names: str | None = Field(default=None, description="file with one class name a line")
    sources: tuple[LabelledSource, ...] = Field(
        default=(), description="several sets instead of `train` and `val`, merged by class name or into `class_names`"
    )
    sampler: Sampler = Span(stride=4)
    augment: Augment = Augment(crop=RandomResizedCrop())
    views: ClipsPerVideo = 1
    cache: Cache = None
    decoder: DecodedBy = "pyav"
    workers: Workers = 2
    max_skipped: LargestSkip = 0.0
    max_seconds_per_file: FileSeconds = 120.0

    @model_validator(mode="after")
    def _check_sources(self) -> LabelledData:
        check_sources(self.sources, {"train": self.train, "val": self.val})
        return self


def reading_of(data: Data | LabelledData) -> Reading:
    """How the videos of a recipe are opened; ValueError where this machine has not got its decoder."""
    if data.decoder == "nvdec" and data.workers > 0:
        raise ValueError("data.decoder=nvdec decodes in the process that trains: set data.workers=0, too")
    return Reading(data.decoder, Limits(seconds=data.max_seconds_per_file))


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
