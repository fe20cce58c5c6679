"""The nearest-neighbour probe: which training videos lie beside a validation video, and what are they?"""

from __future__ import annotations

from typing import Final

import numpy as np
from jaxtyping import Float32, Float64, Int64
from sklearn.neighbors import NearestNeighbors

from tubelet.inference.probe.features import ProbeFeatures, ProbeScores

TEMPERATURE: Final = 0.07
RETRIEVED: Final = 5
"""How many neighbours the reported precision looks at."""


def knn(train: ProbeFeatures, val: ProbeFeatures, *, classes: int, k: int = 20) -> ProbeScores:
    """Vote of the k nearest training videos by cosine, each with weight exp(cosine / 0.07).

    (DINO, arXiv:2104.14294, section 4.1 and appendix; after arXiv:1805.01978.) `k` is capped by the training set.
    The facts hold precision at 1 and 5: the share of the nearest training videos that have the query's class, which is
    what a search would show. ValueError where k is less than 1.
    """
    if k < 1:
        raise ValueError(f"k is {k}; a vote needs at least one neighbour")
    k = min(k, len(train.pooled))
    wanted = max(k, min(RETRIEVED, len(train.pooled)))
    nearest = NearestNeighbors(n_neighbors=wanted, metric="cosine", algorithm="brute")
    distance, place = nearest.fit(_normed(train.pooled)).kneighbors(_normed(val.pooled))
    label = train.labels[place]
    right = label == val.labels[:, None]
    return ProbeScores(
        _vote(1.0 - distance[:, :k], label[:, :k], classes),
        {
            "k": k,
            "precision_at_1": float(right[:, 0].mean()),
            f"precision_at_{RETRIEVED}": float(right[:, :RETRIEVED].mean()),
        },
    )


def _vote(
    cosine: Float64[np.ndarray, "V k"], label: Int64[np.ndarray, "V k"], classes: int
) -> Float64[np.ndarray, "V C"]:
    weight = np.exp(cosine / TEMPERATURE)
    votes = np.zeros((len(label), classes))
    np.add.at(votes, (np.arange(len(label))[:, None], label), weight)
    scores: Float64[np.ndarray, "V C"] = votes / votes.sum(1, keepdims=True)
    return scores


def _normed(pooled: Float32[np.ndarray, "M D"]) -> Float64[np.ndarray, "M D"]:
    wide = pooled.astype(np.float64)  # so that the order of near-equal neighbours is not one of rounding
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    normed: Float64[np.ndarray, "M D"] = wide / np.maximum(length, np.finfo(np.float64).tiny)
    return normed
