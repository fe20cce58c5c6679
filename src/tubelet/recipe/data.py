"""Where the videos of a run come from, and how clips are taken from them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from tubelet.recipe.sources import LabelledSource, VideoSource, check_sources
from tubelet.spec import Spec
from tubelet.video.augment import Augment, MultiScaleCrop, RandomResizedCrop
from tubelet.video.decoders import Decoder, Reading
from tubelet.video.limits import Limits
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
