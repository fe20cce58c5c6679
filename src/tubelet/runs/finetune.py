"""Train a classifier on labelled videos, pre-trained or from scratch (VideoMAE, arXiv:2203.12602, section 4)."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Final, cast

import torch

from tubelet.data.class_names import Names, names_text, read_names
from tubelet.data.labels import without_videos
from tubelet.disk.layout import CLASSES_FILE
from tubelet.methods.classifier import Classifier
from tubelet.methods.distillation import Supervised
from tubelet.plan.count.peaks import throughput_scale_of
from tubelet.plan.plan import make_plan
from tubelet.recipe import FinetuneRecipe, FreshHead, SameClasses, reading_of
from tubelet.rng import step_rng
from tubelet.runs.distill import check_taught, method_of, read_teacher, teacher_path
from tubelet.runs.runner import Ahead, Runner
from tubelet.runs.skeleton import Beginning, Prepared, check_steps, run_single, write_finished
from tubelet.runs.stage_test import LABELLED_TEST
from tubelet.runs.validation import validation
from tubelet.sets.labelled import LabelledSets, labelled_sets
from tubelet.spec import replace
from tubelet.train.building import building, has_weights, pattern
from tubelet.train.distributed.device import pick_device
from tubelet.train.optim import Ema, ParameterGroup, parameter_groups
from tubelet.train.records.watch import Watch
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.classifier import read_classifier
from tubelet.weights.start import classifier_state, start_classifier

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
    return run_single(recipe, out, watch, fresh=fresh, prepared=_prepared)


def _prepared(recipe: FinetuneRecipe, beginning: Beginning) -> Prepared:
    out, watch, goes_on = beginning.out, beginning.watch, beginning.goes_on
    if recipe.start is None and isinstance(recipe.start_head, SameClasses):
        raise ValueError("start_head=same_classes, but there is nothing to start from: give a classifier with --start")
    sets = labelled_sets(recipe)
    names = sets.names
    recipe = replace(recipe, classes=len(names) or None)
    _tell(names, sets, watch)
    beginning.check_apart({"start": recipe.start, "distill.teacher": recipe.teacher})
    teacher = read_teacher(recipe, names, watch)
    with building(recipe.run, goes_on=goes_on):
        classifier = first_classifier(replace(recipe, start=None) if goes_on else recipe, watch, names)
    method = method_of(classifier, recipe, teacher)
    if goes_on:
        _check_names(out, names)
    dataset, mixture = sets.dataset(recipe, watch.say)
    _tell_few_steps(recipe, sets, watch)
    ema = None if recipe.ema is None else Ema(pattern(method, recipe.run), decay=recipe.ema)

    def kept() -> Supervised:
        """The method with the weights that the run is for: their average where there is one."""
        return method if ema is None else cast(Supervised, ema.average)

    return Prepared(
        recipe=recipe,
        method=method,
        groups=finetuning_groups(method, recipe),
        dataset=dataset,
        mixture=mixture,
        weights=lambda: kept().classifier.state_dict(),
        teachers=() if teacher is None else (teacher,),
        texts=_texts(names),
        after_epoch=validation(sets.val, recipe, lambda: kept().eval().classifier, beginning) if sets.val else None,
        ema=ema,
        throughput_scale=partial(throughput_scale_of, recipe),
    )


def first_classifier(recipe: FinetuneRecipe, watch: Watch, names: Names = ()) -> Classifier:
    """The classifier before its first step: fresh weights of the recipe's seed, the encoder's from `recipe.start`.

    `names` are those of its classes, by which its head may start from the start's (`recipe.start_head`). ValueError
    where `recipe.classes` is not known, or the weights to start from are not there or do not fit.
    """
    if recipe.outputs is None:
        raise ValueError("the number of classes is not known; set classes in the recipe")
    with step_rng(recipe.seed, 0):
        classifier = recipe.model.build(recipe.clip, recipe.outputs)
    if recipe.start is not None and has_weights(classifier):
        started = start_classifier(
            classifier, Path(recipe.start), head=recipe.start_head, names=names, inflate=recipe.inflate
        )
        for line in started.lines:
            watch.say(line)
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
    watch.say(f"{len(videos)} labelled videos" + (f" of {len(names)} classes" if names else ""))
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


def write_classifier(out: Path, recipe: FinetuneRecipe, classifier: Classifier, names: Names) -> Path:
    """Write `model/` of the run folder `out`; returns it. The names come last: without them it is not finished."""
    return write_finished(out, recipe, classifier.state_dict(), _texts(names))


def _texts(names: Names) -> dict[str, str]:
    """The names, one a line in the order of the labels; no file where there are no classes."""
    return {CLASSES_FILE: names_text(names)} if names else {}


def _look(recipe: FinetuneRecipe, ahead: Ahead) -> Names:
    pick_device(recipe.run)
    reading_of(recipe.data)
    sets = labelled_sets(recipe)
    check_steps(recipe, sum(source.share.slots for source in sets.train))
    shell, start = _shell(recipe, sets.names, None), ahead.start()
    if start is not None:
        classifier_state(shell, start, head=recipe.start_head, names=sets.names, inflate=recipe.inflate)
    if recipe.distill is not None:
        teacher = ahead.teacher() or read_classifier(teacher_path(recipe.distill))
        check_taught(teacher, sets.names, recipe.clip)
    return sets.names


def _shell(recipe: FinetuneRecipe, names: Names, teacher: Checkpoint | None) -> Classifier:
    del teacher  # it is no part of the classifier
    outputs = recipe.task.outputs(len(names) or None)
    assert outputs is not None  # the labels have been read
    with step_rng(recipe.seed, 0), torch.device("meta"):
        return recipe.model.build(recipe.clip, outputs)


FINETUNE: Final = Runner(
    recipe=FinetuneRecipe,
    label="training on labels",
    run=finetune,
    look=_look,
    next_step="tubelet evaluate FOLDER LIST",
    shell=_shell,
    test=LABELLED_TEST,
    plan=make_plan,
)
