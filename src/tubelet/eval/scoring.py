"""Scores of every video of a set: decode, views through the network, mean per video. Validation and test share it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Int, Num, UInt8
from torch import Tensor
from torch.utils.data import DataLoader

from tubelet.data.dataset import EvalDataset, Skipped, VideoViews
from tubelet.data.workers.guard import DeathSignals
from tubelet.data.workers.loader import start_worker
from tubelet.data.workers.start_handshake import StartHandshake
from tubelet.methods.classifier import Classifier
from tubelet.methods.tasks import Classes, Task
from tubelet.recipe import FinetuneRecipe, reading_of
from tubelet.train.distributed.device import autocast, pick_precision
from tubelet.types import Grid
from tubelet.video.lists.manifest import VideoRef

PREFETCH: Final = 2


@dataclass(frozen=True)
class Scored:
    """Mean predictions (class probabilities) of the videos that could be read; `index` is their place in the manifest.

    Places ascend. `labels` are as the task has them; a video without a class has the label -1.
    """

    scores: Float[np.ndarray, "M C"]
    labels: Num[np.ndarray, "M *L"]
    index: Int[np.ndarray, " M"]
    missing: tuple[Skipped, ...]


def score_videos(
    classifier: Classifier,
    videos: tuple[VideoRef, ...],
    recipe: FinetuneRecipe,
    *,
    views: tuple[int, int],
    device: torch.device,
    on_bad: Callable[[Skipped], None],
    on_progress: Callable[[int], None],
) -> Scored:
    """Score each video by (clips, crops) `views`. The classifier must be on `device` and in eval mode.

    `on_bad` may raise for an unreadable video; else it is left out. `on_progress` gets the number of videos done.
    """
    dataset = EvalDataset(
        videos,
        clip=recipe.clip,
        sampler=recipe.data.sampler,
        clips=views[0],
        crops=views[1],
        cache=None if recipe.data.cache is None else Path(recipe.data.cache),
        reading=reading_of(recipe.data),
    )
    sums = ViewScores(len(videos), classifier.classes)
    missing: list[Skipped] = []
    done = 0
    precision = pick_precision(recipe.run, device)
    for pack in packs(read_views(dataset, workers=recipe.data.workers), views_per_pass(classifier.encoder.grid)):
        good = [item for item in pack if isinstance(item, VideoViews)]
        for bad in (item for item in pack if isinstance(item, Skipped)):
            on_bad(bad)
            missing.append(bad)
        if good:
            index = np.concatenate([np.full(len(item.video), item.index) for item in good])
            video = torch.cat([item.video for item in good])
            computing = autocast(device, precision)
            sums.add(predictions(classifier, video, task=recipe.task, device=device, autocast=computing), index)
        done += len(pack)
        on_progress(done)
    absent = {bad.index for bad in missing}
    index = np.array([place for place in range(len(videos)) if place not in absent], dtype=np.int64)
    return Scored(sums.means(index), recipe.task.truth(videos)[index], index, tuple(missing))


def passes(classifier: Classifier, views: int) -> int:
    """In how many passes `score_videos` scores so many videos of one view each."""
    return -(-views // views_per_pass(classifier.encoder.grid))


def pass_unseen(classifier: Classifier, recipe: FinetuneRecipe, device: torch.device) -> None:
    """A pass whose scores nobody sees, of one black view."""
    frames, size = recipe.clip.frames, recipe.clip.size
    black = torch.zeros((1, 3, frames, size, size), dtype=torch.uint8)
    precision = pick_precision(recipe.run, device)
    predictions(classifier, black, task=recipe.task, device=device, autocast=autocast(device, precision))


def labels_of(videos: Sequence[VideoRef]) -> Int[np.ndarray, " M"]:
    """The class of each video, -1 where it has none."""
    return Classes().truth(videos)


def read_views(dataset: EvalDataset, *, workers: int) -> Iterator[VideoViews | Skipped]:
    """Items in order; one video is one item, so nothing is padded or collated."""
    begun = StartHandshake(workers)
    loader = DataLoader(
        dataset,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=PREFETCH if workers else None,
        worker_init_fn=partial(start_worker, begun),
        generator=torch.Generator(),  # the loader draws a seed from it, which nothing uses
    )
    signals = DeathSignals()
    try:
        source, _ = begun.start(lambda: iter(loader))
        signals.ignore()  # torch may have set a handler by now; it looks for deaths every five seconds without one
        yield from source
    finally:
        signals.restore()


def packs(items: Iterable[VideoViews | Skipped], limit: int) -> Iterator[list[VideoViews | Skipped]]:
    """Consecutive items, until their views fill a pass: short tests go through the network many videos at a time."""
    pack: list[VideoViews | Skipped] = []
    count = 0
    for item in items:
        pack.append(item)
        count += 1 if isinstance(item, Skipped) else len(item.video)
        if count >= limit:
            yield pack
            pack, count = [], 0
    if pack:
        yield pack


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
def predictions(
    classifier: Classifier,
    video: UInt8[Tensor, "V C T H W"],
    *,
    device: torch.device,
    autocast: AbstractContextManager[None],
    task: Task = Classes(),
) -> Float[np.ndarray, "V P"]:
    """What the task predicts of views (class probabilities), fp32, in passes that fit in memory.

    The classifier must be in eval mode.
    """
    limit = views_per_pass(classifier.encoder.grid)
    parts = []
    with autocast:
        for start in range(0, len(video), limit):
            logits = classifier(video[start : start + limit].to(device, non_blocking=True))
            parts.append(task.predictions(logits.float()))
    scores: Float[np.ndarray, "V P"] = torch.cat(parts).cpu().numpy()
    return scores
