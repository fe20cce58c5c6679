"""Train a classifier on labelled videos, pre-trained or from scratch (VideoMAE, arXiv:2203.12602, section 4)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, cast

from tubelet.data.dataset import ClipDataset, ClipPlan, Skipped
from tubelet.eval.labels import Names, class_names, read_names, relabelled, without_videos
from tubelet.eval.metrics import top_k
from tubelet.eval.saved import write_class_names, write_classifier
from tubelet.eval.scoring import score_videos
from tubelet.methods.classifier import Classifier, Finetuning
from tubelet.recipe import FinetuneRecipe, reading_of
from tubelet.rng import step_rng
from tubelet.spec import replace
from tubelet.train.checkpoint import latest
from tubelet.train.distributed import gather, is_main, joined, place
from tubelet.train.ema import Ema
from tubelet.train.log import LOG, read_log
from tubelet.train.loop import Job, fit
from tubelet.train.optim import ParameterGroup, parameter_groups
from tubelet.train.resume import prepare
from tubelet.train.watch import Silent, Watch
from tubelet.video.manifest import Manifest, VideoRef, read_manifest
from tubelet.weights.places import CLASSES_FILE
from tubelet.weights.start import start_classifier

ENCODER: Final = "classifier.encoder."
ACCURACY: Final = "accuracy"
BEST: Final = "best_accuracy"


def finetune(recipe: FinetuneRecipe, out: Path, watch: Watch, *, fresh: bool = False) -> Path:
    """Train a classifier on `recipe.data.train`; returns the folder of the finished model.

    The encoder starts from `recipe.start` (a run, a checkpoint, a file), `fc_norm` and head always fresh; `start` None
    is training from scratch, by the same code. With `recipe.data.val` every epoch ends with one centre view of each of
    its videos. What is saved are the final weights (their average where `recipe.ema` is set), never those of the best
    epoch: choosing by a set's accuracy would make that accuracy too good. A run folder that holds work is continued
    unless `fresh`. ValueError in one line for whatever the user can mend. Under torchrun all ranks call this; the first
    one writes and speaks, and validation is shared out.
    """
    with joined(recipe.run, watch.say):
        return _finetune(recipe, out, watch if is_main() else Silent(), fresh=fresh)


def _finetune(recipe: FinetuneRecipe, out: Path, watch: Watch, *, fresh: bool) -> Path:
    if recipe.data.train is None:
        raise ValueError("no videos to train on: give a list or a folder with --train (recipe field data.train)")
    train = _manifest(recipe.data.train, recipe)
    names_file = None if recipe.data.class_names is None else Path(recipe.data.class_names)
    names = class_names(train, names_file=names_file, classes=recipe.classes)
    videos = relabelled(train, names)
    val = () if recipe.data.val is None else relabelled(_manifest(recipe.data.val, recipe), names)
    recipe = replace(recipe, classes=len(names))
    _tell(names, videos, watch)
    # A checkpoint follows where a run goes on, so what it once started from need not exist any more.
    goes_on = latest(out) is not None and not fresh
    method = Finetuning(first_classifier(replace(recipe, start=None) if goes_on else recipe, watch), recipe.mixing)
    if goes_on:
        _check_names(out, names)
    dataset = _dataset(videos, recipe)
    prepare(out, fresh=fresh)  # after all that can be refused, for `fresh` removes what was there
    write_class_names(out, names)
    job = Job(
        recipe=recipe,
        out=out,
        method=method,
        groups=finetuning_groups(method, recipe),
        dataset=dataset,
        ema=None if recipe.ema is None else Ema(method, decay=recipe.ema),
    )
    if val:
        job = dataclasses.replace(job, after_epoch=_validation(val, job, watch))
    fit(job, watch)
    return write_classifier(out, recipe, _kept(job).classifier, names)


def first_classifier(recipe: FinetuneRecipe, watch: Watch) -> Classifier:
    """The classifier before its first step: fresh weights of the recipe's seed, the encoder's from `recipe.start`.

    ValueError where `recipe.classes` is not known, or the weights to start from are not there or do not fit.
    """
    if recipe.classes is None:
        raise ValueError("the number of classes is not known; set classes in the recipe")
    with step_rng(recipe.seed, 0):
        classifier = recipe.model.build(recipe.clip, recipe.classes)
    if recipe.start is not None:
        started = start_classifier(classifier, Path(recipe.start))
        watch.say(
            f"encoder from {started.file}: {len(started.loaded)} tensors; {len(started.dropped)} of the file not used; "
            f"fresh: {', '.join(started.fresh)}"
        )
        for note in started.notes:
            watch.say(note)
    return classifier


def finetuning_groups(method: Finetuning, recipe: FinetuneRecipe) -> tuple[ParameterGroup, ...]:
    """Parameter groups with layer decay, judged by the names within the encoder."""
    return parameter_groups(
        dict(method.named_parameters()),
        weight_decay=recipe.optim.weight_decay,
        layer_decay=recipe.optim.layer_decay,
        prefix=ENCODER,
    )


def _manifest(source: str, recipe: FinetuneRecipe) -> Manifest:
    root = recipe.data.root
    return read_manifest(Path(source), root=None if root is None else Path(root), labelled=True)


def _check_names(out: Path, names: Names) -> None:
    """A run that goes on must have the classes it began with: its head knows them by number only."""
    path = out / CLASSES_FILE
    if path.is_file() and read_names(path) != names:
        raise ValueError(
            f"{path}: the run there was begun with other classes; start again with --fresh or another --out"
        )


def _tell(names: Names, videos: tuple[VideoRef, ...], watch: Watch) -> None:
    watch.say(f"{len(videos)} labelled videos of {len(names)} classes")
    empty = without_videos(videos, names)
    if empty:
        more = ", ..." if len(empty) > 5 else ""
        watch.say(f"{len(empty)} classes have no training video: {', '.join(empty[:5])}{more}")


def _dataset(videos: tuple[VideoRef, ...], recipe: FinetuneRecipe) -> ClipDataset:
    plan = ClipPlan(
        clip=recipe.clip,
        sampler=recipe.data.sampler,
        augment=recipe.data.augment,
        seed=recipe.seed,
        views=recipe.data.views,
        cache=None if recipe.data.cache is None else Path(recipe.data.cache),
        reading=reading_of(recipe.data),
    )
    return ClipDataset(videos, plan)


def _validation(videos: tuple[VideoRef, ...], job: Job, watch: Watch) -> Callable[[int], Mapping[str, float]]:
    """What the loop calls after each epoch: accuracy of the weights as they would be saved, and the best so far."""
    recipe = cast(FinetuneRecipe, job.recipe)
    method = _kept(job)
    watch.say(
        f"validation after each epoch: one centre view of {len(videos)} videos; "
        "the final weights are saved, not those of the best epoch"
    )

    def refuse(bad: Skipped) -> None:
        raise ValueError(f"{bad.path}: {bad.reason}; mend it or take it out of {recipe.data.val}")

    def right(videos: tuple[VideoRef, ...]) -> float:
        if not videos:
            return 0.0
        scored = score_videos(
            method.eval().classifier,
            videos,
            recipe,
            views=(1, 1),
            device=next(method.parameters()).device,
            on_bad=refuse,
            on_progress=lambda _: None,
        )
        return float(round(top_k(scored.scores, scored.labels, 1) * len(videos)))

    def validate(epoch: int) -> Mapping[str, float]:
        here = place()
        accuracy = sum(one[0] for one in gather([right(videos[here.rank :: here.world])])) / len(videos)
        return {ACCURACY: accuracy, BEST: max([accuracy, *_before(job.out, epoch)])}

    return validate


def _kept(job: Job) -> Finetuning:
    """The method with the weights that the run is for: their average where there is one."""
    return cast(Finetuning, job.method if job.ema is None else job.ema.average)


def _before(out: Path, epoch: int) -> list[float]:
    """Accuracies of earlier epochs, from the log, so that a run that goes on knows them too."""
    records = [record for record in read_log(out / LOG) if "evaluation" in record]
    return [record["evaluation"][ACCURACY] for record in records if record["epoch"] < epoch]
