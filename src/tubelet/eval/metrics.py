"""Numbers that say how good a classifier is: top-k, mean class accuracy, confusion, and how sure they are.

Every accuracy is a ratio in 0..1. M videos, C classes.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float, Int

NORMAL_95: Final = 1.959963984540054
"""The standard normal's 97.5 % point: a two-sided 95 % interval."""


class Interval(NamedTuple):
    """A confidence interval of a ratio."""

    low: float
    high: float


class ClassRow(NamedTuple):
    """How one class fared. `recall` is None where no video has the class, `precision` None where none was given it."""

    label: int
    name: str
    videos: int
    correct: int
    predicted: int
    recall: float | None
    precision: float | None
    mistaken_for: str


def ranked(scores: Float[np.ndarray, "M C"], k: int) -> Int[np.ndarray, "M k"]:
    """The k best classes of each video, best first; of equal scores the lower class comes first."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def top_k(scores: Float[np.ndarray, "M C"], labels: Int[np.ndarray, " M"], k: int) -> float:
    """Ratio of videos whose label is among the k best classes."""
    return float((ranked(scores, k) == labels[:, None]).any(axis=1).mean())


def confusion(labels: Int[np.ndarray, " M"], predicted: Int[np.ndarray, " M"], classes: int) -> Int[np.ndarray, "C C"]:
    """Counts of videos: rows are true classes, columns predicted ones."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def mean_class_accuracy(counts: Int[np.ndarray, "C C"]) -> float:
    """Mean recall over the classes that occur, so that a frequent class counts no more than a rare one."""
    videos = counts.sum(axis=1)
    occurring = videos > 0
    return float((counts.diagonal()[occurring] / videos[occurring]).mean())


def wilson(correct: int, total: int) -> Interval:
    """95 % interval of a ratio (Wilson 1927): holds for few videos and for ratios near 0 or 1, unlike +- 2 sigma."""
    if total <= 0:
        raise ValueError("an interval needs at least one video")
    ratio, square = correct / total, NORMAL_95**2
    centre = (ratio + square / (2 * total)) / (1 + square / total)
    half = NORMAL_95 * math.sqrt(ratio * (1 - ratio) / total + square / (4 * total**2)) / (1 + square / total)
    # At the ends the bound is 0 or 1 exactly; rounding would leave 1e-17.
    return Interval(0.0 if correct == 0 else centre - half, 1.0 if correct == total else centre + half)


def class_rows(counts: Int[np.ndarray, "C C"], names: tuple[str, ...]) -> list[ClassRow]:
    """One row per class, in the order of the classes."""
    return [_class_row(counts, names, label) for label in range(len(names))]


def _class_row(counts: Int[np.ndarray, "C C"], names: tuple[str, ...], label: int) -> ClassRow:
    videos, predicted = int(counts[label].sum()), int(counts[:, label].sum())
    correct = int(counts[label, label])
    wrong = counts[label].copy()
    wrong[label] = 0
    return ClassRow(
        label=label,
        name=names[label],
        videos=videos,
        correct=correct,
        predicted=predicted,
        recall=correct / videos if videos else None,
        precision=correct / predicted if predicted else None,
        mistaken_for=names[int(wrong.argmax())] if wrong.any() else "",
    )
