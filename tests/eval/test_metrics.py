"""Metrics against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tubelet.eval.metrics import class_rows, confusion, mean_class_accuracy, ranked, top_k, wilson

SCORES = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.4, 0.5, 0.1], [0.2, 0.2, 0.6]])
LABELS = np.array([0, 2, 0, 1])


def test_top_k_counts_videos_whose_label_is_among_the_best() -> None:
    assert top_k(SCORES, LABELS, 1) == 0.5
    assert top_k(SCORES, LABELS, 2) == 0.75  # video 3: classes 0 and 1 tie, the lower one ranks higher
    assert top_k(SCORES, LABELS, 3) == 1.0


def test_equal_scores_rank_the_lower_class_first() -> None:
    assert ranked(np.array([[0.25, 0.5, 0.25]]), 3).tolist() == [[1, 0, 2]]


def test_confusion_has_true_classes_in_rows() -> None:
    predicted = ranked(SCORES, 1)[:, 0]
    counts = confusion(LABELS, predicted, 3)
    assert counts.tolist() == [[1, 1, 0], [0, 0, 1], [0, 0, 1]]


def test_mean_class_accuracy_ignores_how_often_a_class_occurs() -> None:
    counts = np.array([[9, 1, 0], [1, 1, 0], [0, 0, 0]])
    assert mean_class_accuracy(counts) == pytest.approx((0.9 + 0.5) / 2)


def test_class_rows_name_what_a_class_is_mistaken_for() -> None:
    rows = class_rows(np.array([[2, 0, 3], [0, 0, 0], [0, 0, 4]]), ("left", "right", "up"))
    assert rows[0] == (0, "left", 5, 2, 2, 0.4, 1.0, "up")
    assert rows[1] == (1, "right", 0, 0, 0, None, None, "")
    assert rows[2].precision == pytest.approx(4 / 7)
    assert rows[2].mistaken_for == ""


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [(8, 10, 0.4901625, 0.9433178), (50, 100, 0.4038315, 0.5961685), (0, 10, 0.0, 0.2775328), (10, 10, 0.7224672, 1.0)],
)
def test_wilson_interval(correct: int, total: int, low: float, high: float) -> None:
    interval = wilson(correct, total)
    assert interval.low == pytest.approx(low, abs=1e-6)
    assert interval.high == pytest.approx(high, abs=1e-6)


def test_an_interval_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one video"):
        wilson(0, 0)
