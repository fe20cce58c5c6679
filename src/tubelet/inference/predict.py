"""Classes of videos: the scores that `tubelet evaluate` would give them, without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from tubelet.data.dataset import Skipped
from tubelet.data.workers.loader import worker_deaths
from tubelet.eval.metrics import ranked
from tubelet.eval.scoring import score_videos
from tubelet.inference.model import Model
from tubelet.inference.progress import Progress
from tubelet.methods.classifier import Classifier
from tubelet.recipe import FinetuneRecipe
from tubelet.spec import replace
from tubelet.video.lists.manifest import VideoRef

FEW: Final = 4
"""Up to this many videos are read in this process: to start others would take longer."""


class Guess(NamedTuple):
    """A class, its number, and its score in 0..1."""

    name: str
    label: int
    score: float


@dataclass(frozen=True)
class Prediction:
    """Mean class probabilities over the views of one video; `index` is its place among the videos given."""

    index: int
    name: str
    path: Path
    scores: Float[np.ndarray, " C"]
    names: tuple[str, ...]

    def top(self, k: int = 5) -> tuple[Guess, ...]:
        """The k likeliest classes, likeliest first; of equal scores the lower label comes first."""
        best = ranked(self.scores[None], k)[0]
        return tuple(Guess(self.names[label], int(label), float(self.scores[label])) for label in best)


def predict(
    model: Model,
    videos: Sequence[VideoRef],
    *,
    clips: int | None = None,
    crops: int | None = None,
    progress: Progress,
) -> tuple[Prediction | Skipped, ...]:
    """Score each video by `clips` x `crops` views, as the model's recipe says where not given, in the order given.

    A video that cannot be read is told and comes back as `Skipped`. ValueError where the model has no classes.
    """
    recipe, classifier, names = _classes_of(model)
    views = (clips or recipe.views.clips, crops or recipe.views.crops)
    found: dict[int, Prediction | Skipped] = {}
    done = unreadable = 0

    def on_bad(bad: Skipped) -> None:
        nonlocal unreadable
        unreadable += 1
        found[bad.index] = bad
        progress.say(f"{bad.path}: {' '.join(bad.reason.split())}")

    def on_progress(count: int) -> None:
        nonlocal done, unreadable
        progress.advance(count - done, (count - done - unreadable) * views[0] * views[1])
        done, unreadable = count, 0

    progress.begin("predicting", len(videos), "videos")
    try:
        with worker_deaths():
            scored = score_videos(
                classifier,
                tuple(videos),
                _as_it_runs_here(recipe, model, len(videos)),
                views=views,
                device=model.device,
                on_bad=on_bad,
                on_progress=on_progress,
            )
    finally:
        progress.end()
    for place, scores in zip(scored.index.tolist(), scored.scores, strict=True):
        video = videos[place]
        found[place] = Prediction(place, video.name, video.path, scores, names)
    return tuple(found[place] for place in range(len(videos)))


def _classes_of(model: Model) -> tuple[FinetuneRecipe, Classifier, tuple[str, ...]]:
    if model.classifier is None or model.names is None or not isinstance(model.recipe, FinetuneRecipe):
        raise ValueError(
            f"{model.file}: a pre-trained model has no classes; fine-tune it first (tubelet finetune RECIPE "
            f"--start {model.file} --train LIST), or take its features with tubelet embed"
        )
    return model.recipe, model.classifier, model.names


def _as_it_runs_here(recipe: FinetuneRecipe, model: Model, videos: int) -> FinetuneRecipe:
    """The recipe with the model's precision, and without the frame cache, which is for videos that are read often."""
    precision = "bf16" if model.precision is torch.bfloat16 else "fp32"
    workers = 0 if videos <= FEW else recipe.data.workers
    return replace(
        recipe,
        data=replace(recipe.data, cache=None, workers=workers),
        run=replace(recipe.run, precision=precision),
    )
