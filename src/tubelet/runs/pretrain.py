"""Masked pre-training on unlabelled videos: a folder or list, or several."""

from __future__ import annotations

from tubelet.train.building import build_method

from functools import partial
from pathlib import Path

from tubelet.plan.count.peaks import throughput_scale_of

from tubelet.data.dataset import ClipPlan, MaskDraw
from tubelet.data.mixed import Source
from tubelet.data.streams import StreamSet
from tubelet.masks import draw_mask
from tubelet.methods.masked import MaskedMethod
from tubelet.recipe import PretrainRecipe, StreamRecipe, reading_of, streams_of
from tubelet.rng import generator, step_rng
from tubelet.train.building import building, has_weights
from tubelet.train.checkpoint.folder import latest
from tubelet.train.distributed.process_group import is_main, joined
from tubelet.train.checkpoint.export import write_model
from tubelet.train.job import Job
from tubelet.train.loop import fit
from tubelet.train.optim import parameter_groups
from tubelet.train.checkpoint.resume import check_apart, prepare
from tubelet.sets.unlabelled import training_set, unlabelled_sources
from tubelet.runs.teacher_record import check_teacher, known_target, named_teachers, write_teacher
from tubelet.train.records.watch import SilentWatch, Watch
from tubelet.weights.start import start_whole
from tubelet.weights.teachers import live_target


def pretrain(recipe: PretrainRecipe, out: Path, watch: Watch, *, fresh: bool = False) -> Path:
    """Pre-train as the recipe says in the run folder `out`; returns its folder `model/`.

    A run folder that holds work is continued, unless `fresh`, which removes that work first. Errors are those of
    `tubelet.train.loop.fit`, and ValueError for videos or weights that are not there. Under torchrun all ranks call
    this, and the first one writes and speaks.
    """
    with joined(recipe.run, watch.say):
        return _pretrain(recipe, out, watch if is_main() else SilentWatch(), fresh=fresh)


def _pretrain(recipe: PretrainRecipe, out: Path, watch: Watch, *, fresh: bool) -> Path:
    streams = streams_of(recipe)
    sources = [unlabelled_sources(one.data, watch.say, clip_frames=one.clip.frames) for one in streams]
    goes_on = latest(out) is not None and not fresh
    if not goes_on:
        check_apart(
            out,
            {
                "start": recipe.start,
                **named_teachers(recipe.target),
            },
        )
    with building(recipe.run, goes_on=goes_on):
        method = build_method(recipe)
    taught = known_target(method.target, watch)
    if goes_on:
        check_teacher(out, taught)
    if recipe.start is not None and not goes_on and has_weights(method):  # before `fresh` removes anything
        started = start_whole(method, Path(recipe.start))
        watch.say(f"weights from {started.file}")
        for note in started.notes:
            watch.say(note)
    first, *others = [
        stream_set(stream, some, method, watch) for stream, some in zip(streams, sources, strict=True)
    ]  # may refuse, too
    prepare(out, fresh=fresh)
    write_teacher(out, taught)
    job = Job(
        recipe=recipe,
        out=out,
        method=method,
        groups=parameter_groups(method, weight_decay=recipe.optim.weight_decay),
        dataset=first.dataset,
        mixture=first.mixture,
        throughput_scale=partial(throughput_scale_of, recipe, method.target),
        other_streams=tuple(others),
    )
    fit(job, watch)
    return write_model(out, recipe, method.state_dict())


def stream_set(stream: StreamRecipe, sources: tuple[Source, ...], method: MaskedMethod, watch: Watch) -> StreamSet:
    """The clips of a stream; ValueError where the grid cannot be hidden as its rules say."""
    dataset, mixture = training_set(
        sources, plan_of(stream, method), mixes=bool(stream.data.sources), say=watch.say
    )
    draw_mask(stream, method.grid, generator(stream.seed, 0))
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
    return ClipPlan(
        clip=recipe.clip,
        sampler=recipe.data.sampler,
        augment=recipe.data.augment,
        seed=recipe.seed,
        views=recipe.data.views,
        masks=MaskDraw(recipe, method.grid),
        cache=None if recipe.data.cache is None else Path(recipe.data.cache),
        reading=reading_of(recipe.data),
    )
