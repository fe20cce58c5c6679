"""Train a classifier on labelled videos, pre-trained or from scratch (VideoMAE, arXiv:2203.12602, section 4)."""

from __future__ import annotations

from tubelet.data.class_names import names_text
from tubelet.disk.lock import write_text
from tubelet.train.checkpoint.export import write_model
from tubelet.train.distributed.process_group import on_main

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from tubelet.plan.count.peaks import throughput_scale_of
from typing import Final, cast

from tubelet.data.mixed import Source
from tubelet.runs.distill import method_of, read_teacher
from tubelet.sets.labelled import LabelledSets, labelled_sets
from tubelet.sets.labels import Names, read_names, without_videos
from tubelet.runs.validation import validation
from tubelet.methods.classifier import Classifier
from tubelet.methods.distillation import Supervised
from tubelet.recipe import FinetuneRecipe, FreshHead, SameClasses
from tubelet.rng import step_rng
from tubelet.spec import replace
from tubelet.train.building import building, has_weights, pattern
from tubelet.train.checkpoint.folder import latest
from tubelet.train.distributed.process_group import is_main, joined
from tubelet.train.optim import Ema
from tubelet.train.loop import Job, fit
from tubelet.train.optim import ParameterGroup, parameter_groups
from tubelet.train.checkpoint.resume import check_apart, prepare
from tubelet.runs.teacher_record import check_teacher, write_teacher
from tubelet.train.records.watch import SilentWatch, Watch
from tubelet.disk.layout import CLASSES_FILE
from tubelet.weights.start import start_classifier

FEW_STEPS: Final = 600
ENOUGH_STEPS: Final = 1000
"""On 224 clips of ten gestures 350 steps hardly left chance, 1,050 from the same weights did (docs/results.md)."""


def finetune(recipe: FinetuneRecipe, out: Path, watch: Watch, *, fresh: bool = False) -> Path:
    """Train a classifier on the labelled videos of the recipe; returns the folder of the finished model.

    The encoder starts from `recipe.start` (a run, a checkpoint, a file), `fc_norm` and head fresh unless
    `recipe.start_head` says more; `start` None is training from scratch, by the same code. With `recipe.data.val`
    every epoch ends with one centre view of each of its videos. What is saved are the final weights (their average
    where `recipe.ema` is set), never those of the best epoch: choosing by a set's accuracy would make that accuracy
    too good. A run folder that holds work is continued unless `fresh`. ValueError in one line for whatever the user
    can mend. Under torchrun all ranks call this; the first one writes and speaks, and validation is shared out.
    """
    with joined(recipe.run, watch.say):
        return _finetune(recipe, out, watch if is_main() else SilentWatch(), fresh=fresh)


def _finetune(recipe: FinetuneRecipe, out: Path, watch: Watch, *, fresh: bool) -> Path:
    if recipe.start is None and isinstance(recipe.start_head, SameClasses):
        raise ValueError("start_head=same_classes, but there is nothing to start from: give a classifier with --start")
    sets = labelled_sets(recipe)
    names = sets.names
    recipe = replace(recipe, classes=len(names))
    _tell(names, sets, watch)
    # A checkpoint follows where a run goes on, so what it once started from need not exist any more.
    goes_on = latest(out) is not None and not fresh
    if not goes_on:
        teacher = None if recipe.distill is None else recipe.distill.teacher
        check_apart(out, {"start": recipe.start, "distill.teacher": teacher})
    taught = read_teacher(recipe, names, watch)
    with building(recipe.run, goes_on=goes_on):
        classifier = first_classifier(replace(recipe, start=None) if goes_on else recipe, watch, names)
    method = method_of(classifier, recipe, taught)
    if goes_on:
        _check_names(out, names)
        check_teacher(out, taught)
    dataset, mixture = sets.dataset(recipe, watch.say)
    prepare(out, fresh=fresh)  # after all that can be refused, for `fresh` removes what was there
    write_class_names(out, names)
    write_teacher(out, taught)
    _tell_few_steps(recipe, sets, watch)
    job = Job(
        recipe=recipe,
        out=out,
        method=method,
        groups=finetuning_groups(method, recipe),
        dataset=dataset,
        mixture=mixture,
        throughput_scale=partial(throughput_scale_of, recipe),
        ema=None if recipe.ema is None else Ema(pattern(method, recipe.run), decay=recipe.ema),
    )
    if sets.val:
        job = dataclasses.replace(job, after_epoch=_validation(sets.val, job, watch))
    fit(job, watch)
    return write_classifier(out, recipe, _kept(job).classifier, names)


def first_classifier(recipe: FinetuneRecipe, watch: Watch, names: Names = ()) -> Classifier:
    """The classifier before its first step: fresh weights of the recipe's seed, the encoder's from `recipe.start`.

    `names` are those of its classes, by which its head may start from the start's (`recipe.start_head`). ValueError
    where `recipe.classes` is not known, or the weights to start from are not there or do not fit.
    """
    if recipe.classes is None:
        raise ValueError("the number of classes is not known; set classes in the recipe")
    with step_rng(recipe.seed, 0):
        classifier = recipe.model.build(recipe.clip, recipe.classes)
    if recipe.start is not None and has_weights(classifier):
        started = start_classifier(classifier, Path(recipe.start), head=recipe.start_head, names=names)
        watch.say(
            f"encoder from {started.file}: {len(started.loaded)} tensors; {len(started.dropped)} of the file not used; "
            f"fresh: {', '.join(started.fresh) or 'none'}"
        )
        for note in started.notes:
            watch.say(note)
    return classifier


def finetuning_groups(method: Supervised, recipe: FinetuneRecipe) -> tuple[ParameterGroup, ...]:
    """Parameter groups with layer decay, as the encoder says."""
    return parameter_groups(
        method,
        weight_decay=recipe.optim.weight_decay,
        layer_decay=recipe.optim.layer_decay,
        encoder=method.classifier.encoder,
    )


def _check_names(out: Path, names: Names) -> None:
    """A run that goes on must have the classes it began with: its head knows them by number only."""
    path = out / CLASSES_FILE
    if path.is_file() and read_names(path) != names:
        raise ValueError(
            f"{path}: the run there was begun with other classes; start again with --fresh or another --out"
        )


def _tell(names: Names, sets: LabelledSets, watch: Watch) -> None:
    for note in sets.notes:
        watch.say(note)
    videos = sets.videos
    watch.say(f"{len(videos)} labelled videos of {len(names)} classes")
    empty = without_videos(videos, names)
    if empty:
        more = ", ..." if len(empty) > 5 else ""
        watch.say(f"{len(empty)} classes have no training video: {', '.join(empty[:5])}{more}")


def _tell_few_steps(recipe: FinetuneRecipe, sets: LabelledSets, watch: Watch) -> None:
    """A word to those who have few labels: epochs that suit many videos are a handful of steps with theirs."""
    each = sum(source.share.slots for source in sets.train) // recipe.run.batch_size
    steps = each * recipe.schedule.epochs
    if isinstance(recipe.start_head, FreshHead) and 0 < steps < FEW_STEPS:
        more = 10 * math.ceil(ENOUGH_STEPS / each / 10)
        watch.say(f"{steps} steps in all, few for a new head: schedule.epochs={more} would make {more * each:,}")


def _validation(sources: Sequence[Source], job: Job, watch: Watch) -> Callable[[int], Mapping[str, float]]:
    """What the loop calls after each epoch: accuracy of the weights as they would be saved, and the best so far."""
    watch.say(
        f"validation after each epoch: one centre view of {sum(len(source.videos) for source in sources)} videos; "
        "the final weights are saved, not those of the best epoch"
    )
    return validation(sources, cast(FinetuneRecipe, job.recipe), lambda: _kept(job).eval().classifier, job.out)


def _kept(job: Job) -> Supervised:
    """The method with the weights that the run is for: their average where there is one."""
    return cast(Supervised, job.method if job.ema is None else job.ema.average)


def write_classifier(out: Path, recipe: FinetuneRecipe, classifier: Classifier, names: Names) -> Path:
    """Write `model/` of the run folder `out`; returns it. The names come last: without them it is not finished."""
    folder = write_model(out, recipe, classifier.state_dict())
    write_class_names(folder, names)
    return folder


def write_class_names(folder: Path, names: Names) -> None:
    """Write the names, one a line in the order of the labels."""
    on_main(lambda: write_text(folder / CLASSES_FILE, names_text(names)))
