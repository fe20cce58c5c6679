"""How good are frozen features? Nearest neighbours, logistic regression, attentive pooling on one reading of a set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
from pydantic import Field

from tubelet.data.dataset import Skipped
from tubelet.disk.tables import SKIPPED, write_csv, write_json
from tubelet.disk.write import new_folder, open_folder
from tubelet.eval.metrics import Interval, confusion, mean_class_accuracy, ranked, top_k, wilson
from tubelet.eval.results import BEST, write_results
from tubelet.eval.scoring import Scored
from tubelet.inference.model import Model
from tubelet.inference.probe.attentive import (
    AttentiveRecord,
    AttentiveTraining,
    score_attentive,
    train_attentive,
    write_attentive,
)
from tubelet.inference.probe.features import FeaturePlan, ProbeFeatures, ProbeScores, read_features
from tubelet.inference.probe.knn import knn
from tubelet.inference.probe.linear import linear
from tubelet.inference.progress import Progress
from tubelet.models.heads import AttentiveSpec
from tubelet.names import one_line
from tubelet.sets.pair import LabelledPair
from tubelet.spec import Spec

Kind = Literal["knn", "linear", "attentive"]


class ProbeSettings(Spec):
    """Which probes, and how. `max_skipped` is for training videos; a missing validation video must be allowed."""

    kinds: tuple[Kind, ...] = get_args(Kind)
    k: int = Field(default=20, ge=1, description="neighbours that vote")
    clips: int = Field(default=1, ge=1, description="centre views in time per video")
    seed: int = Field(default=0, ge=0, description="folds of the linear probe; weights and order of the attentive one")
    max_skipped: float = Field(default=0.0, ge=0, le=1, description="largest share of unreadable training videos")
    allow_missing: bool = Field(default=False, description="leave unreadable validation videos out")
    workers: int | None = Field(default=None, ge=0, description="processes that decode; as the model's recipe says")
    training: AttentiveTraining = AttentiveTraining()


@dataclass(frozen=True)
class ProbeResult:
    """What one probe reached on the validation videos, as ratios in 0..1; `top5` is None for five classes or fewer."""

    kind: Kind
    top1: float
    interval: Interval
    top5: float | None
    mean_class_accuracy: float
    facts: Mapping[str, float | int | None]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ProbeReport:
    """All probes on one set. `chance` is what guessing by the training set's class frequencies would reach."""

    results: tuple[ProbeResult, ...]
    chance: float
    videos: tuple[int, int]
    skipped: tuple[Skipped, ...]
    missing: tuple[Skipped, ...]
    out: Path


@dataclass(frozen=True)
class ProbeTask:
    """What every probe is given."""

    model: Model
    train: ProbeFeatures
    val: ProbeFeatures
    sets: LabelledPair
    settings: ProbeSettings
    progress: Progress


def probe(
    model: Model, sets: LabelledPair, *, out: Path, settings: ProbeSettings | None = None, progress: Progress
) -> ProbeReport:
    """Run the probes of `settings` on features of a frozen model; the same numbers each time.

    Writes to `out`: features/ (read again by the next run), skipped.csv, probe.json of this run, and a folder per probe
    with metrics.json, predictions.csv, classes.csv, confusion.csv, confusion.png; the attentive one's weights as well.
    ValueError where training videos beyond `max_skipped`, or validation videos that are not allowed to be missing,
    cannot be read.
    """
    settings = settings or ProbeSettings()
    open_folder(out)
    for note in (*model.notes, *sets.notes):
        progress.say(note)
    workers = model.recipe.data.workers if settings.workers is None else settings.workers
    plan = FeaturePlan(out / "features", settings.clips, "attentive" in settings.kinds, workers)
    # The smaller set first: what is wrong with it is then said before hours went into the other one.
    val = read_features(model, sets.val, plan, split="val", progress=progress)
    _check_val(val, sets, settings)
    train = read_features(model, sets.train, plan, split="train", progress=progress)
    _check_train(train, val, sets, settings=settings, out=out)
    task = ProbeTask(model, train, val, sets, settings, progress)
    results = [_run(kind, task, out) for kind in settings.kinds]
    videos = (len(train.labels), len(val.labels))
    report = ProbeReport(tuple(results), _chance(train, val), videos, train.skipped, val.skipped, out)
    write_json(out / "probe.json", _facts(report, model, sets, settings))
    return report


def _check_val(val: ProbeFeatures, sets: LabelledPair, settings: ProbeSettings) -> None:
    if val.skipped and not settings.allow_missing:
        first = val.skipped[0]
        others = f" (and {len(val.skipped) - 1} more)" if len(val.skipped) > 1 else ""
        raise ValueError(
            f"{one_line(str(first.path))}: {first.reason}{others}; mend it, or leave it out with --allow-missing "
            f"(tubelet check {sets.sources[1]} finds all such files)"
        )


def _check_train(
    train: ProbeFeatures, val: ProbeFeatures, sets: LabelledPair, *, settings: ProbeSettings, out: Path
) -> None:
    write_csv(out / SKIPPED, ["path", "reason"], [[str(bad.path), bad.reason] for bad in train.skipped])
    if len(train.skipped) > settings.max_skipped * len(sets.train):
        raise ValueError(
            f"{len(train.skipped)} of {len(sets.train)} training videos cannot be read, more than "
            f"--max-skipped={settings.max_skipped:g} allows; {out / SKIPPED} names them and says why"
        )
    lost = sorted(set(val.labels.tolist()) - set(train.labels.tolist()))
    if lost:
        raise ValueError(f"{sets.sources[0]}: no training video of class {sets.names[lost[0]]!r} can be read")
    if len(set(train.labels.tolist())) < 2:
        raise ValueError(f"{sets.sources[0]}: the training videos that can be read are all of one class")


def _chance(train: ProbeFeatures, val: ProbeFeatures) -> float:
    frequency = np.bincount(train.labels, minlength=int(val.labels.max()) + 1) / len(train.labels)
    return float(frequency[val.labels].mean())


def _run(kind: Kind, task: ProbeTask, out: Path) -> ProbeResult:
    sets, val = task.sets, task.val
    reached = PROBES[kind].run(task)
    for note in reached.notes:
        task.progress.say(note)
    found = _measure(kind, reached, val, len(sets.names))
    title = f"{kind} probe of {task.model.recipe.name} on {sets.sources[1].name}: top-1 {found.top1:.1%}"
    scored = Scored(reached.scores, val.labels, val.index, val.skipped)
    with new_folder(out / kind) as folder:
        write_results(folder, scored, sets.val, names=sets.names, title=title)
        write_json(folder / "metrics.json", _numbers(found))
        reached.save(folder)
    return found


def _run_knn(task: ProbeTask) -> ProbeScores:
    return knn(task.train, task.val, classes=len(task.sets.names), k=task.settings.k)


def _run_linear(task: ProbeTask) -> ProbeScores:
    classes = len(task.sets.names)
    return linear(task.train, task.val, classes=classes, seed=task.settings.seed, progress=task.progress)


def _run_attentive(task: ProbeTask) -> ProbeScores:
    model, names, settings = task.model, task.sets.names, task.settings
    attentive, loss = train_attentive(
        task.train,
        # The encoder's own number of heads, which is known to divide its width.
        AttentiveSpec(width=model.width, heads=model.encoder.out_heads),
        settings.training,
        classes=len(names),
        seed=settings.seed,
        device=model.device,
        progress=task.progress,
    )
    epochs = settings.training.epochs_for(len(task.train.labels))
    facts = {"heads": attentive.spec.heads, "epochs": epochs, "training_loss": loss}
    record = AttentiveRecord(
        spec=attentive.spec, names=names, training=settings.training, fingerprint=model.fingerprint
    )
    scores = score_attentive(attentive, task.val)
    return ProbeScores(scores, facts, save=lambda folder: write_attentive(folder, attentive, record))


def _say_knn(found: ProbeResult, chance: float) -> str:
    facts = found.facts
    return (
        f"knn: k = {facts['k']}; of the nearest clips, {facts['precision_at_1']:.1%} (first) and "
        f"{facts['precision_at_5']:.1%} (first five) have the class of the query; chance {chance:.1%}"
    )


def _say_linear(found: ProbeResult, chance: float) -> str:
    del chance
    facts = found.facts
    if facts["fold_accuracy"] is None:
        return ""
    return (
        f"linear: C = {facts['c']:g}, right in {facts['fold_accuracy']:.1%} of the training videos "
        f"when their fold of {facts['folds']} is left out"
    )


def _say_attentive(found: ProbeResult, chance: float) -> str:
    del chance
    return f"attentive: {found.facts['epochs']} epochs, last training loss {found.facts['training_loss']:.3f}"


@dataclass(frozen=True)
class Probe:
    """A kind of probe: how it is run, and what is said of its result, given chance, beside its accuracy."""

    run: Callable[[ProbeTask], ProbeScores]
    words: Callable[[ProbeResult, float], str]


PROBES: Final[dict[Kind, Probe]] = {
    "knn": Probe(_run_knn, _say_knn),
    "linear": Probe(_run_linear, _say_linear),
    "attentive": Probe(_run_attentive, _say_attentive),
}


def _measure(kind: Kind, reached: ProbeScores, val: ProbeFeatures, classes: int) -> ProbeResult:
    counts = confusion(val.labels, ranked(reached.scores, 1)[:, 0], classes)
    return ProbeResult(
        kind=kind,
        top1=top_k(reached.scores, val.labels, 1),
        interval=wilson(int(counts.trace()), len(val.labels)),
        top5=top_k(reached.scores, val.labels, BEST) if classes > BEST else None,
        mean_class_accuracy=mean_class_accuracy(counts),
        facts=reached.facts,
        notes=reached.notes,
    )


def _numbers(found: ProbeResult) -> dict[str, Any]:
    return {
        "top1": found.top1,
        "top1_interval_95": list(found.interval),
        "top5": found.top5,
        "mean_class_accuracy": found.mean_class_accuracy,
        **found.facts,
        "notes": list(found.notes),
    }


def _facts(report: ProbeReport, model: Model, sets: LabelledPair, settings: ProbeSettings) -> dict[str, Any]:
    return {
        "probes": {found.kind: _numbers(found) for found in report.results},
        "chance": report.chance,
        "classes": len(sets.names),
        "train": {"source": str(sets.sources[0]), "videos": report.videos[0], "skipped": len(report.skipped)},
        "val": {
            "source": str(sets.sources[1]),
            "videos": report.videos[1],
            "missing": [{"path": bad.name, "reason": bad.reason} for bad in report.missing],
        },
        "clips": settings.clips,
        "seed": settings.seed,
        "recipe": model.recipe.name,
        "model": str(model.file),
        "fingerprint": model.fingerprint,
    }
