"""Masked pre-training on unlabelled videos: a folder or list, or several."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

import torch

from tubelet.data.class_names import Names
from tubelet.data.dataset import ClipPlan, MaskDraw
from tubelet.data.mixed import Source
from tubelet.data.streams import StreamSet
from tubelet.masks import draw_mask
from tubelet.methods.masked import MaskedMethod
from tubelet.plan.count.peaks import throughput_scale_of
from tubelet.plan.plan import make_plan
from tubelet.recipe import PretrainRecipe, StreamRecipe, reading_of, streams_of
from tubelet.rng import generator, step_rng
from tubelet.runs.runner import Ahead, Runner
from tubelet.runs.skeleton import Beginning, Prepared, check_steps, run_single
from tubelet.runs.teacher_record import known_target, named_teachers
from tubelet.sets.unlabelled import clip_plan, training_set, unlabelled_sources, videos_of_epoch
from tubelet.spec import replace
from tubelet.train.building import build_method, building, has_weights
from tubelet.train.distributed.device import pick_device
from tubelet.train.optim import parameter_groups
from tubelet.train.records.watch import Watch
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.start import masked_state, start_masked
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
    streams = streams_of(recipe)
    sources = [unlabelled_sources(one.data, watch.say, clip_frames=one.clip.frames) for one in streams]
    beginning.check_apart({"start": recipe.start, **named_teachers(recipe.target)})
    with building(recipe.run, goes_on=beginning.goes_on):
        method = build_method(recipe)
    teachers = known_target(method.target, watch)
    if recipe.start is not None and not beginning.goes_on and has_weights(method):
        started = start_masked(method, Path(recipe.start), part=recipe.start_part, inflate=recipe.inflate)
        for line in started.lines:
            watch.say(line)
    first, *others = [stream_set(one, some, method, watch) for one, some in zip(streams, sources, strict=True)]
    return Prepared(
        recipe=recipe,
        method=method,
        groups=parameter_groups(method, weight_decay=recipe.optim.weight_decay),
        dataset=first.dataset,
        mixture=first.mixture,
        weights=method.state_dict,
        teachers=teachers,
        throughput_scale=partial(throughput_scale_of, recipe),
        other_streams=tuple(others),
    )


def stream_set(stream: StreamRecipe, sources: tuple[Source, ...], method: MaskedMethod, watch: Watch) -> StreamSet:
    """The clips of a stream; ValueError where the grid cannot be hidden as its rules say."""
    plan, mixes = plan_of(stream, method), bool(stream.data.sources)
    dataset, mixture = training_set(sources, plan, mixes=mixes, say=watch.say)
    _check_mask(stream, method)
    return StreamSet(
        stream.name,
        dataset,
        stream.batch_size,
        mixture=mixture,
        weight=stream.weight,
        max_skipped=stream.data.max_skipped,
    )


def plan_of(recipe: PretrainRecipe | StreamRecipe, method: MaskedMethod) -> ClipPlan:
    """How clips and masks of the recipe, or of one of its streams, are drawn."""
    return clip_plan(recipe, masks=MaskDraw(recipe, method.grid))


def _check_mask(recipe: PretrainRecipe | StreamRecipe, method: MaskedMethod) -> None:
    """ValueError where the grid of the method cannot be hidden as the recipe, or one of its streams, says."""
    draw_mask(recipe, method.grid, generator(recipe.seed, 0))


def _look(recipe: PretrainRecipe, ahead: Ahead) -> Names:
    pick_device(recipe.run)
    reading_of(recipe.data)
    check_steps(recipe, _videos_of_epoch(recipe))
    method = _shell(recipe, (), ahead.teacher())
    for stream in streams_of(recipe):
        _check_mask(stream, method)
    start = ahead.start()
    if start is not None:
        masked_state(method, start, part=recipe.start_part, inflate=recipe.inflate)
    return ()


def _shell(recipe: PretrainRecipe, names: Names, teacher: Checkpoint | None) -> MaskedMethod:
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
