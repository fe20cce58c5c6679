"""What a supervised run learns: labels, what augmentation does to them, head, loss, metrics. `TASKS` has every task.

A new task is a subclass of `Task` in a file of this room and a line in `TASKS` (docs/add-a-task.md). What a test
writes of it is general, unless `tubelet.eval.reports` has a report of its own for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

import numpy as np
import torch
from jaxtyping import Float, Num
from pydantic import BeforeValidator, SerializeAsAny, ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from tubelet.data.class_names import Names
from tubelet.data.labels import class_names, relabelled
from tubelet.spec import Spec, explain
from tubelet.types import VIDEO, Output
from tubelet.video.augment.crops import Placement
from tubelet.video.lists.manifest import Manifest, VideoRef

Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Blends clips and classes: videos and labels in, videos and soft labels [B, classes] out."""


class Task(Spec):
    """Base of all tasks. B clips, P numbers that the head gives for each, M videos; L is the shape of a label."""

    metric: ClassVar[str]
    """The number that is looked at after each epoch: a mean over the videos."""
    higher_is_better: ClassVar[bool] = True
    gives_classes: ClassVar[bool] = False
    """Whether labels are classes with names: only those can be mixed, distilled, mapped and merged by name."""

    kind: str

    def names(self, manifest: Manifest, *, names_file: Path | None, classes: int | None) -> Names:
        """Names of the classes to learn from this list; () for a task without classes. ValueError as it says why."""
        del manifest, names_file, classes
        return ()

    def labelled(self, manifest: Manifest, names: Names) -> tuple[VideoRef, ...]:
        """The videos of a list with the labels that the task learns, in `label` (classes) or in `values` (numbers).

        Videos that it labelled before stay as they are. ValueError with the list's line for a label that it cannot
        learn.
        """
        raise NotImplementedError

    def label(self, video: VideoRef, placements: Sequence[Placement]) -> Num[Tensor, "V *L"]:
        """The label of each of the V clips of a video, which were cut and flipped as `placements` say."""
        raise NotImplementedError

    def truth(self, videos: Sequence[VideoRef]) -> Num[np.ndarray, "M *L"]:
        """The labels of whole videos, which predictions are compared with; -1 for a video without a class."""
        raise NotImplementedError

    def made_up(self, index: int, *, clips: int, outputs: int) -> Num[Tensor, "V *L"]:
        """Labels of the clips of a made-up video, for steps that are only measured."""
        raise NotImplementedError

    def outputs(self, classes: int | None) -> int | None:
        """How many numbers P the head gives; None where that is not known before the labels are."""
        raise NotImplementedError

    def learn(self, network: nn.Module, video: Tensor, labels: Tensor, mix: Mix | None) -> Output:
        """Mean loss and metrics over the clips, which `mix` may blend with their labels; None leaves them plain."""
        raise NotImplementedError

    def predictions(self, outputs: Float[Tensor, "B P"]) -> Float[Tensor, "B P"]:
        """What a view predicts, from the numbers of the head; the predictions of a video are the mean of its views."""
        return outputs

    def total(self, predictions: Float[np.ndarray, "M P"], truth: Num[np.ndarray, "M *L"]) -> float:
        """The sum of `metric` over videos."""
        raise NotImplementedError


class Classes(Task):
    """One class for each video, learnt by cross entropy; the metric is top-1 accuracy."""

    metric: ClassVar[str] = "accuracy"
    gives_classes: ClassVar[bool] = True

    kind: Literal["classes"] = "classes"

    def names(self, manifest: Manifest, *, names_file: Path | None, classes: int | None) -> Names:
        return class_names(manifest, names_file=names_file, classes=classes)

    def labelled(self, manifest: Manifest, names: Names) -> tuple[VideoRef, ...]:
        return relabelled(manifest, names)

    def label(self, video: VideoRef, placements: Sequence[Placement]) -> Num[Tensor, "V *L"]:
        """However a clip is cut or flipped, its class stays."""
        return torch.full((len(placements),), -1 if video.label is None else video.label)

    def truth(self, videos: Sequence[VideoRef]) -> Num[np.ndarray, "M *L"]:
        return np.array([-1 if video.label is None else video.label for video in videos], dtype=np.int64)

    def made_up(self, index: int, *, clips: int, outputs: int) -> Num[Tensor, "V *L"]:
        return torch.full((clips,), index % outputs)

    def outputs(self, classes: int | None) -> int | None:
        return classes

    def learn(self, network: nn.Module, video: Tensor, labels: Tensor, mix: Mix | None) -> Output:
        """`accuracy` is against the clip's own label, mixed or not."""
        if mix is None:
            logits = network(video).float()
            loss = F.cross_entropy(logits, labels)
        else:
            mixed, soft = mix(video, labels)
            logits = network(mixed).float()
            loss = F.cross_entropy(logits, soft)
        with torch.no_grad():
            accuracy = (logits.argmax(1) == labels).float().mean()
        return Output({VIDEO: loss}, {VIDEO: {"accuracy": accuracy}})

    def predictions(self, outputs: Float[Tensor, "B P"]) -> Float[Tensor, "B P"]:
        """Class probabilities."""
        return outputs.softmax(dim=1)

    def total(self, predictions: Float[np.ndarray, "M P"], truth: Num[np.ndarray, "M *L"]) -> float:
        """Videos whose own class is the likeliest; of equal scores the lower class counts."""
        return float((predictions.argmax(axis=1) == truth).sum())


TASKS: Final[dict[str, type[Task]]] = {"classes": Classes}
"""Every task by its `kind`."""


def _parsed(value: Any) -> Task:
    if isinstance(value, Task):
        return value
    fields = {"kind": value} if isinstance(value, str) else value
    kind = fields.get("kind") if isinstance(fields, dict) else None
    task = TASKS.get(kind) if isinstance(kind, str) else None
    if task is None:
        raise ValueError(f"unknown task {kind or value!r}; choose from {', '.join(TASKS)}")
    try:
        return task.model_validate(fields)
    except ValidationError as error:
        raise ValueError(explain(error, task)) from error


AnyTask = Annotated[SerializeAsAny[Task], BeforeValidator(_parsed)]
"""Any task, read from data by its `kind`, which may stand alone: `task=classes`."""
