"""A kind of run that is neither pre-training nor fine-tuning: it learns the mean colour of unlabelled videos."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Final, Literal

import torch
from torch import nn

from tubelet.data.class_names import Names
from tubelet.recipe import Data, Optim, Run, Schedule, SingleRun
from tubelet.runs.runner import Ahead, Runner
from tubelet.runs.skeleton import Beginning, Prepared, check_steps, run_single
from tubelet.sets.unlabelled import clip_plan, training_set, unlabelled_sources, videos_of_epoch
from tubelet.train.optim import parameter_groups
from tubelet.train.records.watch import Watch
from tubelet.types import Batch, ClipShape, Output


class ColourRecipe(SingleRun):
    """What describes such a run."""

    does: ClassVar[str] = "learns a colour"
    gives: ClassVar[str] = "a colour"

    kind: Literal["colour"] = "colour"
    clip: ClipShape = ClipShape(frames=4, size=16)
    data: Data = Data()
    optim: Optim = Optim(lr=10.0)
    schedule: Schedule = Schedule(epochs=3, warmup_epochs=0)
    run: Run = Run()
    start: str | None = None


class MeanColour(nn.Module):
    """Three numbers, drawn to the mean of each clip."""

    def __init__(self) -> None:
        super().__init__()
        self.colour = nn.Parameter(torch.full((3,), 0.5))

    def forward(self, batch: Batch) -> Output:
        means = batch.clips["video"].video.float().mean((2, 3, 4)) / 255
        return Output({"video": (means - self.colour).square().mean()})

    def count(self, batch: Batch) -> dict[str, float]:
        return {"video": float(batch.sizes["video"])}

    def state_buffers(self) -> set[str]:
        return set()


def learn_colour(recipe: ColourRecipe, out: Path, watch: Watch, *, fresh: bool = False) -> Path:
    """Learn the mean colour of the videos in the run folder `out`; returns its folder `model/`."""
    return run_single(recipe, out, watch, fresh=fresh, prepared=_prepared)


def _prepared(recipe: ColourRecipe, beginning: Beginning) -> Prepared:
    sources = unlabelled_sources(recipe.data, beginning.watch.say, clip_frames=recipe.clip.frames)
    method = MeanColour()
    dataset, mixture = training_set(sources, clip_plan(recipe), mixes=False, say=beginning.watch.say)
    groups = parameter_groups(method, weight_decay=0.0)
    return Prepared(recipe, method, groups, dataset, weights=method.state_dict, mixture=mixture)


def _look(recipe: ColourRecipe, ahead: Ahead) -> Names:
    del ahead
    check_steps(recipe, videos_of_epoch(recipe, lambda line: None) or 0)
    return ()


COLOUR: Final = Runner(recipe=ColourRecipe, label="learning a colour", run=learn_colour, look=_look)
