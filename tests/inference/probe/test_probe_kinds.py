"""The three probes on numbers: what can be told apart is, what cannot is chance, and nothing depends on luck."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from probe_toys import features, shuffled

from tubelet.inference.probe import linear as linear_module
from tubelet.inference.probe.attentive import (
    AttentiveRecord,
    AttentiveTraining,
    read_attentive,
    score_attentive,
    train_attentive,
    write_attentive,
)
from tubelet.inference.probe.features import ProbeFeatures, ProbeScores
from tubelet.inference.probe.knn import knn
from tubelet.inference.probe.linear import STRENGTHS, USUAL, linear
from tubelet.inference.progress import Quiet
from tubelet.models.heads import AttentiveSpec

SPEC = AttentiveSpec(width=12, heads=2)
SHORT = AttentiveTraining(epochs=60, batch_size=16, lr=3e-3)
KINDS = ["knn", "linear", "attentive"]


def verdict(kind: str, train: ProbeFeatures, val: ProbeFeatures, classes: int = 3, seed: int = 0) -> ProbeScores:
    if kind == "knn":
        return knn(train, val, classes=classes, k=5)
    if kind == "linear":
        return linear(train, val, classes=classes, seed=seed, progress=Quiet())
    probe, _ = train_attentive(
        train, SPEC, SHORT, classes=classes, seed=seed, device=torch.device("cpu"), progress=Quiet()
    )
    return ProbeScores(score_attentive(probe, val))


def part(found: ProbeFeatures, rows: np.ndarray) -> ProbeFeatures:
    assert found.tokens is not None
    return ProbeFeatures(found.pooled[rows], found.tokens[rows], found.labels[rows], found.index[rows], ())


def accuracy(found: ProbeScores, val: ProbeFeatures) -> float:
    return float((found.scores.argmax(1) == val.labels).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_separable_classes_are_all_told_apart(kind: str) -> None:
    val = features(20, seed=9)
    found = verdict(kind, features(20), val)
    assert accuracy(found, val) == 1.0
    np.testing.assert_allclose(found.scores.sum(1), 1.0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["shuffled", "alike"])
def test_labels_that_mean_nothing_give_chance(kind: str, what: str) -> None:
    train = shuffled(features(40)) if what == "shuffled" else features(40, gap=0.0)
    val = features(100, gap=4.0 if what == "shuffled" else 0.0, seed=9)
    if what == "shuffled":
        val = shuffled(val, seed=2)
    assert abs(accuracy(verdict(kind, train, val), val) - 1 / 3) < 0.09  # 300 videos: three deviations are 0.08


@pytest.mark.parametrize("kind", KINDS)
def test_twice_gives_the_same_bits(kind: str) -> None:
    train, val = features(10, gap=0.5), features(10, gap=0.5, seed=9)
    np.testing.assert_array_equal(verdict(kind, train, val).scores, verdict(kind, train, val).scores)


@pytest.mark.parametrize("kind", KINDS)
def test_validation_videos_do_not_change_what_is_learnt(kind: str) -> None:
    train, val = features(10, gap=0.5), features(10, gap=0.5, seed=9)
    half = part(val, np.arange(15))
    whole = verdict(kind, train, replace(val, labels=(val.labels + 1) % 3)).scores
    np.testing.assert_allclose(verdict(kind, train, half).scores, whole[:15], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_without_training_videos_gets_nothing_or_little(kind: str) -> None:
    train, val = features(10, classes=3), features(5, classes=3, seed=9)
    scores = verdict(kind, train, val, classes=5).scores
    assert scores.shape == (15, 5)
    assert scores[:, 3:].max() < 0.1


def test_the_vote_is_the_formula_written_out() -> None:
    train, val = features(4, gap=0.5), features(1, gap=0.5, seed=9)
    a = train.pooled / np.linalg.norm(train.pooled, axis=1, keepdims=True)
    b = val.pooled / np.linalg.norm(val.pooled, axis=1, keepdims=True)
    expected = np.zeros((3, 3))
    for row, cosines in enumerate(b @ a.T):
        for place in np.argsort(-cosines)[:5]:
            expected[row, train.labels[place]] += np.exp(cosines[place] / 0.07)
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(knn(train, val, classes=3, k=5).scores, expected, rtol=1e-4)


def test_near_neighbours_outvote_many_far_ones() -> None:
    """One neighbour at cosine 1 against three at cosine 0.8: exp(1 / 0.07) is more than three times exp(0.8 / 0.07)."""
    near, far = [1.0, 0.0], [0.8, 0.6]
    train = ProbeFeatures(np.array([near, far, far, far], np.float32), None, np.array([0, 1, 1, 1]), np.arange(4), ())
    val = ProbeFeatures(np.array([near], np.float32), None, np.array([0]), np.arange(1), ())
    assert knn(train, val, classes=2, k=4).scores.argmax() == 0


def test_length_does_not_matter_to_neighbours() -> None:
    train, val = features(5, gap=0.5), features(5, gap=0.5, seed=9)
    scale = np.random.default_rng(0).uniform(0.1, 10, (len(train.pooled), 1)).astype(np.float32)
    scaled = replace(train, pooled=train.pooled * scale)
    np.testing.assert_allclose(knn(scaled, val, classes=3).scores, knn(train, val, classes=3).scores, rtol=1e-4)


def test_precision_counts_neighbours_of_the_right_class() -> None:
    angle = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 2.0])
    pooled = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
    train = ProbeFeatures(pooled, None, np.array([0, 0, 1, 0, 1, 0]), np.arange(6), ())
    val = ProbeFeatures(pooled[:1], None, np.array([0]), np.arange(1), ())
    facts = knn(train, val, classes=2, k=1).facts
    assert facts["precision_at_1"] == 1.0
    assert facts["precision_at_5"] == pytest.approx(3 / 5)  # 0 0 1 0 1; the last one is sixth


def test_k_is_capped_by_the_training_set_and_at_least_one() -> None:
    train, val = features(2), features(2, seed=9)
    found = knn(train, val, classes=3, k=99)
    assert found.facts["k"] == 6
    np.testing.assert_array_equal(found.scores, knn(train, val, classes=3, k=6).scores)
    with pytest.raises(ValueError, match="k is 0"):
        knn(train, val, classes=3, k=0)


def test_the_linear_probe_chooses_its_strength_on_training_videos() -> None:
    """Twelve dimensions, few noisy videos: weak regularisation must lose on the folds, and be seen to."""
    train = features(6, gap=0.4, seed=3)
    facts = linear(train, features(4, seed=9), classes=3, seed=0, progress=Quiet()).facts
    assert facts["c"] in STRENGTHS
    assert facts["folds"] == 5
    assert 1 / 3 < float(facts["fold_accuracy"] or 0) < 1.0


def test_features_of_very_different_size_do_not_stop_the_linear_probe() -> None:
    train, val = features(10), features(10, seed=9)
    size = (10.0 ** np.arange(-3, 3, 0.5)).astype(np.float32)
    stretched = linear(replace(train, pooled=train.pooled * size + size), replace(val, pooled=val.pooled * size + size),
                       classes=3, seed=0, progress=Quiet())  # fmt: skip
    assert accuracy(stretched, val) == 1.0


@pytest.mark.parametrize(("each", "folds"), [(1, 0), (2, 2), (7, 5)])
def test_few_videos_mean_few_folds(each: int, folds: int) -> None:
    found = linear(features(each), features(3, seed=9), classes=3, seed=0, progress=Quiet())
    assert found.facts["folds"] == folds
    assert (found.facts["c"] == USUAL and "too few" in found.notes[0]) == (folds == 0)


def test_one_rare_class_does_not_stop_cross_validation() -> None:
    train = features(6)
    rare = np.flatnonzero((train.labels != 2) | (np.arange(len(train.labels)) == 2))
    few = part(train, rare)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = linear(few, features(3, seed=9), classes=3, seed=0, progress=Quiet())
    assert found.facts["folds"] == 5


def test_fits_that_do_not_converge_are_a_note_and_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_module, "MOST_ITERATIONS", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = linear(features(6), features(3, seed=9), classes=3, seed=0, progress=Quiet())
    assert "had not converged after 1 iterations" in found.notes[0]


def test_attention_finds_what_the_mean_hides() -> None:
    """The class is the sign of one marked token; in the mean it drowns in the others."""
    rng = np.random.default_rng(0)

    def hidden(count: int) -> ProbeFeatures:
        labels = rng.integers(0, 2, count)
        tokens = rng.standard_normal((count, 16, 12)) * 2
        place = rng.integers(0, 16, count)
        tokens[np.arange(count), place] = 0.0
        tokens[np.arange(count), place, 0] = 12.0
        tokens[np.arange(count), place, 1] = 8.0 * labels - 4.0
        return ProbeFeatures(tokens.mean(1).astype(np.float32), tokens.astype(np.float16), labels, np.arange(count), ())

    train, val = hidden(200), hidden(200)
    assert accuracy(verdict("linear", train, val, classes=2), val) < 0.75
    probe, _ = train_attentive(
        train, SPEC, AttentiveTraining(epochs=60), classes=2, seed=0, device=torch.device("cpu"), progress=Quiet()
    )
    assert accuracy(ProbeScores(score_attentive(probe, val)), val) > 0.95


def test_seeds_give_different_attentive_probes() -> None:
    train, val = features(10, gap=0.5), features(10, gap=0.5, seed=9)
    first, second = (verdict("attentive", train, val, seed=seed).scores for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_small_sets_are_seen_often_and_large_ones_twenty_times() -> None:
    assert [AttentiveTraining().epochs_for(videos) for videos in (6, 160, 224, 1600)] == [200, 200, 143, 20]
    assert AttentiveTraining().epochs_for(100_000) == 20
    assert AttentiveTraining(epochs=3).epochs_for(160) == 3


def test_an_attentive_probe_is_read_back_equal(tmp_path: Path) -> None:
    train, val = features(4), features(4, seed=9)
    probe, _ = train_attentive(train, SPEC, SHORT, classes=3, seed=0, device=torch.device("cpu"), progress=Quiet())
    record = AttentiveRecord(spec=SPEC, names=("a", "b", "c"), training=SHORT, fingerprint="f")
    write_attentive(tmp_path, probe, record)
    back, found = read_attentive(tmp_path)
    assert found == record
    np.testing.assert_array_equal(score_attentive(back, val), score_attentive(probe, val))
    (tmp_path / "attentive.json").write_text('{"spec": 3}')
    with pytest.raises(ValueError, match=r"attentive\.json: "):
        read_attentive(tmp_path)
