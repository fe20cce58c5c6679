"""Masked pre-training on unlabelled videos: a folder or list, or several."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

import torch

from tubelet.data.class_names import Names
from tubelet.data.dataset import ClipPlan, MaskDraw
from tubelet.masks import draw_mask
from tubelet.methods.masked import MaskedMethod
from tubelet.plan.count.peaks import throughput_scale_of
from tubelet.plan.plan import make_plan
from tubelet.recipe import PretrainRecipe, reading_of
from tubelet.rng import generator, step_rng
from tubelet.runs.runner import Ahead, Runner
from tubelet.runs.skeleton import Beginning, Prepared, check_steps, run_single
from tubelet.runs.teacher_record import known_target
from tubelet.sets.unlabelled import clip_plan, training_set, unlabelled_sources, videos_of_epoch
from tubelet.spec import replace
from tubelet.train.building import build_method, building, has_weights
from tubelet.train.distributed.device import pick_device
from tubelet.train.optim import parameter_groups
from tubelet.train.records.watch import Watch
from tubelet.weights.imported import Imported
from tubelet.weights.start import start_whole, whole_state
from tubelet.weights.teachers import planned_target


def pretrain(recipe: PretrainRecipe, out: Path, watch: Watch, *, fresh: bool = False) -> Path:
    """Pre-train as the recipe says in the run folder `out`; returns its folder `model/`.

    A run folder that holds work is continued, unless `fresh`, which removes that work first. Errors are those of
    `tubelet.train.loop.fit`, and ValueError for videos or weights that are not there. Under torchrun all ranks call
    this, and the first one writes and speaks.
    """
    return run_single(recipe, out, watch, fresh=fresh, prepared=_prepared)


def _prepared(recipe: PretrainRecipe, beginning: Beginning) -> Prepared:
    watch = beginning.watch
    sources = unlabelled_sources(recipe.data, watch.say, clip_frames=recipe.clip.frames)
    beginning.check_apart({"start": recipe.start, "target.teacher": recipe.teacher})
    with building(recipe.run, goes_on=beginning.goes_on):
        method = build_method(recipe)
    teacher = known_target(method.target, watch)
    if recipe.start is not None and not beginning.goes_on and has_weights(method):
        started = start_whole(method, Path(recipe.start))
        for line in (f"weights from {started.file}", *started.notes):
            watch.say(line)
    plan, mixes = plan_of(recipe, method), bool(recipe.data.sources)
    dataset, mixture = training_set(sources, plan, mixes=mixes, say=watch.say)
    _check_mask(recipe, method)
    return Prepared(
        recipe=recipe,
        method=method,
        groups=parameter_groups(dict(method.named_parameters()), weight_decay=recipe.optim.weight_decay),
        dataset=dataset,
        mixture=mixture,
        weights=method.state_dict,
        teacher=teacher,
        throughput_scale=partial(throughput_scale_of, recipe, method.target),
    )


def plan_of(recipe: PretrainRecipe, method: MaskedMethod) -> ClipPlan:
    """How clips and masks of the recipe are drawn."""
    return clip_plan(recipe, masks=MaskDraw(recipe, method.grid))


def _check_mask(recipe: PretrainRecipe, method: MaskedMethod) -> None:
    """ValueError where the grid of the method cannot be hidden as the recipe says."""
    draw_mask(recipe, method.grid, generator(recipe.seed, 0))


def _look(recipe: PretrainRecipe, ahead: Ahead) -> Names:
    pick_device(recipe.run)
    reading_of(recipe.data)
    check_steps(recipe, _videos_of_epoch(recipe))
    method = _shell(recipe, (), ahead.teacher())
    _check_mask(recipe, method)
    start = ahead.start()
    if start is not None:
        whole_state(method, start)
    return ()


def _shell(recipe: PretrainRecipe, names: Names, teacher: Imported | None) -> MaskedMethod:
    del names  # it has no classes
    target = planned_target(recipe, teacher)
    with step_rng(recipe.seed, 0), torch.device("meta"):
        return recipe.model.build(recipe.clip, target)


def _videos_of_epoch(recipe: PretrainRecipe) -> int:
    """At least so many: long videos count once here, as to cut them takes a look at every file."""
    whole = tuple(replace(source, segment_seconds=None) for source in recipe.data.sources)
    videos = videos_of_epoch(replace(recipe, data=replace(recipe.data, sources=whole)), _nobody)
    if videos is None:
        raise ValueError("no videos to train on: set data.videos or data.sources")
    if videos < recipe.run.batch_size and whole != recipe.data.sources:
        return videos_of_epoch(recipe, _nobody) or 0
    return videos


def _nobody(line: str) -> None:
    """Hears nothing."""


PRETRAIN: Final = Runner(
    recipe=PretrainRecipe,
    label="pre-training",
    run=pretrain,
    look=_look,
    next_step="tubelet finetune RECIPE --start FOLDER --train LIST --out RUN",
    shell=_shell,
    plan=make_plan,
)
