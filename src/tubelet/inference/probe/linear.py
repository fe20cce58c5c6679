"""The linear probe: logistic regression on frozen vectors."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from jaxtyping import Float32, Float64, Int64
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from tubelet.inference.probe.features import ProbeFeatures, ProbeScores
from tubelet.inference.progress import Progress

STRENGTHS: Final = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Values of C that are tried: one over the L2 penalty; the smallest of equally good ones is taken."""
USUAL: Final = 1e-2
"""C where the training set is too small to try."""
FOLDS: Final = 5
MOST_ITERATIONS: Final = 2000


@dataclass
class _Fits:
    """Fits so far, and how many of them did not converge."""

    done: int = 0
    unfinished: int = 0

    def fit(self, pooled: Float32[np.ndarray, "M D"], labels: Int64[np.ndarray, " M"], strength: float) -> Pipeline:
        """Standardise by these videos alone, then regress."""
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=MOST_ITERATIONS))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # counted instead, and told once
            model.fit(pooled.astype(np.float64), labels)
        self.unfinished += int(model[-1].n_iter_.max()) >= MOST_ITERATIONS
        self.done += 1
        return model


def linear(train: ProbeFeatures, val: ProbeFeatures, *, classes: int, seed: int, progress: Progress) -> ProbeScores:
    """Multinomial logistic regression on standardised vectors; C by cross-validation within the training set.

    The validation set chooses nothing. The folds are stratified and follow from `seed`, so all is deterministic.
    """
    folds = _folds(train.labels)
    fits = _Fits()
    progress.begin("linear probe", folds + 1, "parts")
    try:
        accuracy = _cross_validated(train, fits, folds=folds, seed=seed, progress=progress) if folds else None
        strength = USUAL if accuracy is None else STRENGTHS[int(np.argmax(accuracy))]
        model = fits.fit(train.pooled, train.labels, strength)
        progress.advance(1, 0)
    finally:
        progress.end()
    scores = np.zeros((len(val.pooled), classes))
    scores[:, model.classes_] = model.predict_proba(val.pooled.astype(np.float64))
    facts = {"c": strength, "folds": folds, "fold_accuracy": None if accuracy is None else float(accuracy.max())}
    return ProbeScores(scores, facts, _notes(fits, folds))


def _cross_validated(
    train: ProbeFeatures, fits: _Fits, *, folds: int, seed: int, progress: Progress
) -> Float64[np.ndarray, " strengths"]:
    """Share of the training videos that are recognised when their fold is left out, for each C."""
    right = np.zeros(len(STRENGTHS))
    splits: Any = StratifiedKFold(folds, shuffle=True, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # `_folds` sees to it
        parts = list(splits.split(train.pooled, train.labels))
    for learn, check in parts:
        for place, strength in enumerate(STRENGTHS):
            model = fits.fit(train.pooled[learn], train.labels[learn], strength)
            guessed = model.predict(train.pooled[check].astype(np.float64))
            right[place] += np.count_nonzero(guessed == train.labels[check])
        progress.advance(1, 0)
    return right / len(train.labels)


def _folds(labels: Int64[np.ndarray, " M"]) -> int:
    """As many as the second largest class can fill, so that two classes are left whatever fold is taken; 0 for none."""
    second = int(np.sort(np.bincount(labels))[-2])
    return min(FOLDS, second) if second > 1 else 0


def _notes(fits: _Fits, folds: int) -> tuple[str, ...]:
    notes = []
    if not folds:
        notes.append(f"linear: one video a class is too few to choose C by cross-validation; C={USUAL:g} was taken")
    if fits.unfinished:
        share = f"{fits.unfinished} of {fits.done} fits"
        notes.append(f"linear: {share} had not converged after {MOST_ITERATIONS} iterations")
    return tuple(notes)
