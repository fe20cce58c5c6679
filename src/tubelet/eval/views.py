"""Many views of a video, one score: softmax of each view, averaged by the video's place in its manifest.

By place, not by file name: two videos of one name in two folders stay two videos
(the authors' merge() goes by the stem of the file and averages them together).
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from tubelet.methods.classifier import Classifier
from tubelet.types import Grid

TOKENS_PER_PASS: Final = 32_768
"""Tokens in one forward pass: about twenty views of 16x224x224, under 2 GB of activations for ViT-H in fp32."""


def views_per_pass(grid: Grid) -> int:
    """How many views go through the network at once."""
    return max(1, TOKENS_PER_PASS // grid.tokens)


class ViewScores:
    """Sums of the class probabilities of the views of M videos."""

    def __init__(self, videos: int, classes: int) -> None:
        # float64: the average must not depend on the order in which views arrive.
        self._sums = np.zeros((videos, classes), dtype=np.float64)
        self.views: Int[np.ndarray, " M"] = np.zeros(videos, dtype=np.int64)

    def add(self, probabilities: Float[np.ndarray, "V C"], index: Int[np.ndarray, " V"]) -> None:
        """Add views; `index` is the place of each view's video in its manifest."""
        np.add.at(self._sums, index, probabilities)
        np.add.at(self.views, index, 1)

    def means(self, index: Int[np.ndarray, " M"]) -> Float[np.ndarray, "M C"]:
        """Mean probabilities of these videos. ValueError where one has no view, or scores that are no numbers."""
        views = self.views[index]
        if (views == 0).any():
            raise ValueError(f"video {int(index[views == 0][0])} has no view; it cannot be scored")
        means: Float[np.ndarray, "M C"] = self._sums[index] / views[:, None]
        if not np.isfinite(means).all():
            raise ValueError("the model gives scores that are not finite; its weights are broken")
        return means


@torch.no_grad()  # not inference_mode: what FSDP gathers first in it, training could not use
def probabilities(
    classifier: Classifier,
    video: UInt8[Tensor, "V C T H W"],
    *,
    device: torch.device,
    autocast: AbstractContextManager[None],
) -> Float[np.ndarray, "V classes"]:
    """Class probabilities of views, fp32, in passes that fit in memory. The classifier must be in eval mode."""
    limit = views_per_pass(classifier.encoder.grid)
    parts = []
    with autocast:
        for start in range(0, len(video), limit):
            logits = classifier(video[start : start + limit].to(device, non_blocking=True))
            parts.append(logits.float().softmax(dim=1))
    scores: Float[np.ndarray, "V classes"] = torch.cat(parts).cpu().numpy()
    return scores
