"""What a test found, and the files that it writes: of classes in full, of any other task its metric and predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Int

from tubelet.data.class_names import Names
from tubelet.data.dataset import Skipped
from tubelet.disk.tables import Cell, write_csv, write_json
from tubelet.eval.metrics import ClassRow, Interval, class_rows, confusion, mean_class_accuracy, ranked, top_k, wilson
from tubelet.eval.results import BEST, write_results
from tubelet.eval.scoring import Scored
from tubelet.methods.tasks import Task
from tubelet.video.lists.manifest import VideoRef

Row = tuple[str, ...]


@dataclass(frozen=True)
class Tested:
    """What was tested: the run's task and class names, the videos, (clips, crops) `views`, the folder for results.

    `facts` end metrics.json: where the videos, the recipe and the weights are from. `title` is for pictures.
    """

    task: Task
    names: Names
    videos: tuple[VideoRef, ...]
    views: tuple[int, int]
    out: Path
    title: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """What a test found. `numbers` are the metrics by name; `summary` and `worst` are lines of tables for people.

    `videos` counts those that were scored; `missing` could not be read and enter no number.
    """

    numbers: Mapping[str, Any]
    videos: int
    clips: int
    crops: int
    missing: tuple[Skipped, ...]
    out: Path

    @property
    def summary(self) -> tuple[tuple[str, str], ...]:
        """Name and value of each number."""
        return tuple((name, f"{value:.4g}") for name, value in self.numbers.items())

    def worst(self, count: int) -> tuple[Row, ...]:
        """Header and rows of what went worst; nothing where that is not known."""
        del count
        return ()


@dataclass(frozen=True)
class ClassEvaluation(Evaluation):
    """What a test of classes found. Accuracies are ratios in 0..1; `top5` is None for five classes or fewer."""

    top1: float
    top5: float | None
    mean_class_accuracy: float
    top1_interval: Interval
    classes: tuple[ClassRow, ...]
    confusion: Int[np.ndarray, "C C"]

    @property
    def summary(self) -> tuple[tuple[str, str], ...]:
        """Accuracies as percentages."""
        low, high = self.top1_interval
        top5 = () if self.top5 is None else (("top-5", f"{self.top5:.1%}"),)
        return (
            ("top-1", f"{self.top1:.1%}  (95 %: {low:.1%} to {high:.1%})"),
            *top5,
            ("mean of classes", f"{self.mean_class_accuracy:.1%}"),
        )

    def worst(self, count: int) -> tuple[Row, ...]:
        """The classes of least recall, and what they are mostly taken for."""
        seen = [(row.recall, -row.videos, place) for place, row in enumerate(self.classes) if row.recall is not None]
        rows = [self.classes[place] for _, _, place in sorted(seen)[:count]]
        lines = [(row.name, f"{row.correct} of {row.videos}", row.mistaken_for) for row in rows]
        return (("class", "right", "mostly taken for"), *lines)


Report = Callable[[Scored, Tested], Evaluation]
"""Measures what was scored, and writes metrics.json, predictions.csv and whatever else belongs to the task."""


def report_of_classes(scored: Scored, tested: Tested) -> ClassEvaluation:
    """Accuracies, classes.csv, confusion.csv, confusion.png, predictions.csv, metrics.json."""
    names, views = tested.names, tested.views
    counts = confusion(scored.labels, ranked(scored.scores, 1)[:, 0], len(names))
    top1 = top_k(scored.scores, scored.labels, 1)
    numbers: dict[str, Any] = {
        "top1": top1,
        "top1_interval_95": list(wilson(int(counts.trace()), len(scored.labels))),
        "top5": top_k(scored.scores, scored.labels, BEST) if len(names) > BEST else None,
        "mean_class_accuracy": mean_class_accuracy(counts),
    }
    count = len(scored.labels)
    title = f"{tested.title}: top-1 {top1:.1%} of {count} videos"
    write_results(tested.out, scored, tested.videos, names=names, title=title)
    _write_metrics(scored, tested, {**numbers, "classes": len(names)})
    return ClassEvaluation(
        numbers=numbers,
        videos=count,
        clips=views[0],
        crops=views[1],
        missing=scored.missing,
        out=tested.out,
        top1=top1,
        top5=numbers["top5"],
        mean_class_accuracy=numbers["mean_class_accuracy"],
        top1_interval=Interval(*numbers["top1_interval_95"]),
        classes=tuple(class_rows(counts, names)),
        confusion=counts,
    )


def report_of_numbers(scored: Scored, tested: Tested) -> Evaluation:
    """The metric of the task, metrics.json, and predictions.csv with labels and predictions of each video."""
    count = len(scored.labels)
    numbers = {tested.task.metric: tested.task.total(scored.scores, scored.labels) / count}
    _write_metrics(scored, tested, numbers)
    truth = scored.labels.reshape(count, -1)
    header = ["path", "missing", *_numbered("label", truth.shape[1]), *_numbered("predicted", scored.scores.shape[1])]
    row_of = {int(place): row for row, place in enumerate(scored.index)}
    reasons = {bad.index: bad.reason for bad in scored.missing}
    rows: list[list[Cell]] = []
    for place, video in enumerate(tested.videos):
        row = row_of.get(place)
        found = None if row is None else [*truth[row].tolist(), *scored.scores[row].tolist()]
        rows.append([video.name, reasons.get(place), *(found or [None] * (len(header) - 2))])
    write_csv(tested.out / "predictions.csv", header, rows)
    return Evaluation(numbers, count, *tested.views, scored.missing, tested.out)


REPORTS: Final[dict[str, Report]] = {"classes": report_of_classes}
"""Reports of their own, by the kind of the task; all other tasks have `report_of_numbers`."""


def _write_metrics(scored: Scored, tested: Tested, numbers: Mapping[str, Any]) -> None:
    count, (clips, crops) = len(scored.labels), tested.views
    missing = [{"path": bad.name, "reason": bad.reason} for bad in scored.missing]
    counts = {"videos": count, "clips": clips, "crops": crops, "views": count * clips * crops, "missing": missing}
    write_json(tested.out / "metrics.json", {**numbers, **counts, **tested.facts})


def _numbered(what: str, count: int) -> list[str]:
    return [what] if count == 1 else [f"{what}_{number}" for number in range(1, count + 1)]
