"""Views are merged by the video's place in its manifest, and passes are cut to fit in memory."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch

from tubelet.eval.scoring import ViewScores, predictions, views_per_pass
from tubelet.methods.classifier import Classifier, ClassifierSpec
from tubelet.models.vit import ViTSpec
from tubelet.types import ClipShape, Grid

CPU = torch.device("cpu")


def small_classifier() -> Classifier:
    torch.manual_seed(0)
    spec = ClassifierSpec(encoder=ViTSpec(width=16, depth=1, heads=2, patch=8), init_scale=1.0)
    return spec.build(ClipShape(frames=4, size=16), 3).eval()


def test_views_of_a_video_are_averaged_however_they_arrive() -> None:
    scores = ViewScores(videos=3, classes=2)
    scores.add(np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]], dtype=np.float32), np.array([0, 2, 0]))
    scores.add(np.array([[0.0, 1.0]], dtype=np.float32), np.array([0]))
    assert scores.means(np.array([0, 2])).tolist() == [[0.5, 0.5], [0.0, 1.0]]
    assert scores.views.tolist() == [3, 0, 1]


def test_a_video_without_a_view_has_no_score() -> None:
    scores = ViewScores(videos=2, classes=2)
    with pytest.raises(ValueError, match="video 1 has no view"):
        scores.means(np.array([1]))


def test_scores_that_are_no_numbers_are_refused() -> None:
    scores = ViewScores(videos=1, classes=2)
    scores.add(np.array([[np.nan, 1.0]], dtype=np.float32), np.array([0]))
    with pytest.raises(ValueError, match="not finite"):
        scores.means(np.array([0]))


def test_passes_do_not_change_the_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = small_classifier()
    video = torch.randint(0, 256, (5, 3, 4, 16, 16), dtype=torch.uint8)
    together = predictions(classifier, video, device=CPU, autocast=contextlib.nullcontext())
    monkeypatch.setattr("tubelet.eval.scoring.TOKENS_PER_PASS", 2 * classifier.encoder.grid.tokens)
    in_parts = predictions(classifier, video, device=CPU, autocast=contextlib.nullcontext())
    assert in_parts.shape == (5, 3)
    np.testing.assert_allclose(in_parts, together, atol=1e-6)
    np.testing.assert_allclose(together.sum(axis=1), 1.0, atol=1e-6)


def test_a_pass_is_at_least_one_view() -> None:
    assert views_per_pass(Grid(8, 14, 14)) == 20
    assert views_per_pass(Grid(64, 50, 50)) == 1
