"""The clips of a work unit through the model, batch by batch."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from tubelet.inference.embed.store import Rows
from tubelet.inference.embed.windows import Window
from tubelet.inference.model import Model


class Batches:
    """Collects windows, computes their vectors `size` at a time, and forgets those of a video that turned out bad.

    Windows come in order. What is in a batch depends on the windows alone, so equal videos give equal vectors.
    """

    def __init__(self, model: Model, size: int) -> None:
        self._model, self._size = model, size
        self._waiting: list[tuple[str, Window]] = []
        self._done: list[tuple[str, int, float, float, Float32[np.ndarray, " D"]]] = []

    def add(self, name: str, window: Window) -> int:
        """Take a window of the video `name`; returns how many clips went through the model because of it."""
        self._waiting.append((name, window))
        return self.compute() if len(self._waiting) == self._size else 0

    def drop(self, name: str) -> None:
        """Forget a video."""
        self._waiting = [item for item in self._waiting if item[0] != name]
        self._done = [row for row in self._done if row[0] != name]

    def compute(self) -> int:
        """Send what waits through the model; returns how many clips that were."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return 0
        found = vectors(self._model, torch.stack([window.video for _, window in waiting]))
        for (name, window), vector in zip(waiting, found, strict=True):
            self._done.append((name, window.clip, window.start_seconds, window.end_seconds, vector))
        return len(waiting)

    def rows(self) -> Rows:
        """All rows so far, in the order of their windows."""
        names, clips, start, end = zip(*(row[:4] for row in self._done), strict=True) if self._done else ((),) * 4
        kept = [row[4] for row in self._done]
        return Rows(
            tuple(names),
            np.array(clips, np.int32),
            np.array(start, np.float64),
            np.array(end, np.float64),
            np.stack(kept) if kept else np.empty((0, self._model.vector_width), np.float32),
        )


def vectors(model: Model, clips: Tensor) -> Float32[np.ndarray, "B D"]:
    """The model's vectors of uint8 clips [B,C,T,H,W]. ValueError where they are not finite."""
    pooled: Float[Tensor, "B D"] = model.pool(clips)
    found: Float32[np.ndarray, "B D"] = pooled.float().cpu().numpy()
    if not np.isfinite(found).all():
        raise ValueError(f"{model.file}: the model gives vectors that are not finite; its weights are broken")
    return found
