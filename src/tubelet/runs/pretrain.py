"""Masked pre-training on unlabelled videos: a folder or list, or several."""

from __future__ import annotations

from tubelet.train.building import build_method

from functools import partial
from pathlib import Path

from tubelet.plan.count.peaks import throughput_scale_of

from tubelet.data.dataset import ClipPlan, MaskDraw
from tubelet.masks import draw_mask
from tubelet.methods.masked import MaskedMethod
from tubelet.recipe import PretrainRecipe, reading_of
from tubelet.rng import generator, step_rng
from tubelet.targets.frozen import FrozenSpec
from tubelet.train.building import building, has_weights
from tubelet.train.checkpoint.folder import latest
from tubelet.train.distributed.process_group import is_main, joined
from tubelet.train.checkpoint.export import write_model
from tubelet.train.job import Job
from tubelet.train.loop import fit
from tubelet.train.optim import parameter_groups
from tubelet.train.checkpoint.resume import check_apart, prepare
from tubelet.sets.unlabelled import training_set, unlabelled_sources
from tubelet.runs.teacher_record import check_teacher, known_target, write_teacher
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
    sources = unlabelled_sources(recipe.data, watch.say, clip_frames=recipe.clip.frames)
    goes_on = latest(out) is not None and not fresh
    if not goes_on:
        check_apart(
            out,
            {
                "start": recipe.start,
                "target.teacher": recipe.target.teacher if isinstance(recipe.target, FrozenSpec) else None,
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
    plan, mixes = plan_of(recipe, method), bool(recipe.data.sources)
    dataset, mixture = training_set(sources, plan, mixes=mixes, say=watch.say)  # may refuse, too
    draw_mask(recipe, method.grid, generator(recipe.seed, 0))  # may find that its grid cannot be hidden so
    prepare(out, fresh=fresh)
    write_teacher(out, taught)
    job = Job(
        recipe=recipe,
        out=out,
        method=method,
        groups=parameter_groups(method, weight_decay=recipe.optim.weight_decay),
        dataset=dataset,
        mixture=mixture,
        throughput_scale=partial(throughput_scale_of, recipe, method.target),
    )
    fit(job, watch)
    return write_model(out, recipe, method.state_dict())




def plan_of(recipe: PretrainRecipe, method: MaskedMethod) -> ClipPlan:
    """How clips and masks of the recipe are drawn."""
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
