"""The clips of a file of embeddings that are most like those of a video: cosine similarity of their vectors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64

from tubelet.inference.embed.batches import vectors
from tubelet.inference.embed.store import Embeddings
from tubelet.inference.embed.windows import Window, read_windows
from tubelet.inference.model import Model
from tubelet.spec import Spec
from tubelet.video.read.file import BadVideo

ROWS_AT_ONCE: Final = 8192
"""Stored vectors compared in one go: 50 MB for a width of 768. A million take about four seconds on one core."""


class Choice(Spec):
    """Which hits are wanted: how many, and of each video all clips or its best one only.

    `at_seconds` compares the window of the query that is nearest to this time (by its middle) instead of all.
    """

    k: int = 8
    at_seconds: float | None = None
    one_per_video: bool = False


@dataclass(frozen=True)
class Hit:
    """A stored clip: its rank from 1, its row in the store, its video and time, and how alike it is (1: the same).

    `query_clip` is the window of the query that it is most like.
    """

    rank: int
    row: int
    name: str
    clip: int
    start_seconds: float
    end_seconds: float
    score: float
    query_clip: int


@dataclass(frozen=True)
class QueryWindow:
    """The time of a window of the query."""

    clip: int
    start_seconds: float
    end_seconds: float


@dataclass(frozen=True)
class Hits:
    """The stored clips that are most like the windows of the query, best first."""

    query: Path
    windows: tuple[QueryWindow, ...]
    hits: tuple[Hit, ...]


def search(query: Path, store: Embeddings, model: Model, choice: Choice = Choice()) -> Hits:
    """Cut the query as the store's videos were cut, and compare: a stored clip scores by its best window of the query.

    ValueError where the store is of another model or empty, or the query cannot be read.
    """
    check_model(store, model)
    if not len(store):
        raise ValueError("there are no embeddings to search in")
    windows, found = _query(query, store, model, choice)
    scores, best = similarities(store.vectors, found)
    rows = _best_rows(store, scores, choice)
    hits = tuple(
        Hit(
            rank=rank,
            row=row,
            name=store.paths[row],
            clip=int(store.clips[row]),
            start_seconds=float(store.start_seconds[row]),
            end_seconds=float(store.end_seconds[row]),
            score=float(scores[row]),
            query_clip=windows[int(best[row])].clip,
        )
        for rank, row in enumerate(rows.tolist(), start=1)
    )
    return Hits(query, windows, hits)


def check_model(store: Embeddings, model: Model) -> None:
    """ValueError where the vectors are not this model's."""
    facts = store.facts
    if facts.pooling != model.pooling:
        raise ValueError(f"the embeddings were made with pooling {facts.pooling!r}, the model has {model.pooling!r}")
    if facts.fingerprint != model.fingerprint:
        raise ValueError(
            f"the embeddings were made with another model (or it changed): {facts.model} ({facts.fingerprint[:12]}), "
            f"not {model.file} ({model.fingerprint[:12]}); embed again, or search with that one"
        )


def similarities(
    stored: Float32[np.ndarray, "M D"], query: Float32[np.ndarray, "Q D"]
) -> tuple[Float64[np.ndarray, " M"], Int64[np.ndarray, " M"]]:
    """For each stored vector the greatest cosine with a vector of the query, and which one that was.

    In float64, because near-copies differ in the seventh digit. A vector of zeros is like nothing: 0.
    """
    wanted = query.astype(np.float64)
    wanted /= _lengths(wanted)
    scores, best = np.empty(len(stored), np.float64), np.empty(len(stored), np.int64)
    for start in range(0, len(stored), ROWS_AT_ONCE):
        rows = stored[start : start + ROWS_AT_ONCE].astype(np.float64)
        cosines = rows @ wanted.T / _lengths(rows)
        here = slice(start, start + len(rows))
        scores[here], best[here] = cosines.max(axis=1), cosines.argmax(axis=1)
    return scores, best


def _query(
    query: Path, store: Embeddings, model: Model, choice: Choice
) -> tuple[tuple[QueryWindow, ...], Float32[np.ndarray, "Q D"]]:
    """The query's windows and their vectors."""
    facts = store.facts
    found: list[Float32[np.ndarray, "B D"]] = []
    times: list[QueryWindow] = []
    waiting: list[Window] = []
    try:
        windows = read_windows(query, clip=facts.clip, sampler=facts.sampler, windows=facts.windows)
        for window in windows if choice.at_seconds is None else [_nearest(query, windows, choice.at_seconds)]:
            times.append(QueryWindow(window.clip, window.start_seconds, window.end_seconds))
            waiting.append(window)
            if len(waiting) == facts.batch:
                found.append(vectors(model, torch.stack([one.video for one in waiting])))
                waiting = []
    except BadVideo as bad:
        raise ValueError(str(bad)) from bad
    if waiting:
        found.append(vectors(model, torch.stack([one.video for one in waiting])))
    return tuple(times), np.concatenate(found)


def _nearest(query: Path, windows: Iterable[Window], at_seconds: float) -> Window:
    """The window whose middle is nearest to a time. ValueError where the video ends before."""
    nearest: Window | None = None
    end = 0.0
    for window in windows:
        end = window.end_seconds
        if nearest is None or _distance(window, at_seconds) < _distance(nearest, at_seconds):
            nearest = window
    if nearest is None or not 0 <= at_seconds <= end:
        raise ValueError(f"{query}: nothing is shown at {at_seconds:g} s; the video ends at {end:.2f} s")
    return nearest


def _distance(window: Window, at_seconds: float) -> float:
    return abs((window.start_seconds + window.end_seconds) / 2 - at_seconds)


def _best_rows(store: Embeddings, scores: Float64[np.ndarray, " M"], choice: Choice) -> Int64[np.ndarray, " k"]:
    """Rows of the best scores, best first; of equal ones the first in the store."""
    order = np.argsort(-scores, kind="stable")
    if not choice.one_per_video:
        return order[: choice.k]
    seen: set[str] = set()
    kept: list[int] = []
    for row in order.tolist():
        if store.paths[row] not in seen:
            seen.add(store.paths[row])
            kept.append(row)
            if len(kept) == choice.k:
                break
    return np.array(kept, dtype=np.int64)


def _lengths(rows: Float64[np.ndarray, "B D"]) -> Float64[np.ndarray, "B 1"]:
    lengths: Float64[np.ndarray, "B 1"] = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    return lengths
