"""Test a fine-tuned run on labelled videos: many views each, accuracy, tables, a picture, predictions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Int

from tubelet.data.dataset import Skipped
from tubelet.data.workers.loader import worker_deaths
from tubelet.disk.layout import CLASSES_FILE, EVALUATION_FOLDER
from tubelet.disk.tables import write_json
from tubelet.disk.write import open_folder
from tubelet.eval.metrics import ClassRow, Interval, class_rows, confusion, mean_class_accuracy, ranked, top_k, wilson
from tubelet.eval.results import BEST, write_results
from tubelet.eval.scoring import Scored, score_videos
from tubelet.names import one_line
from tubelet.recipe import Run
from tubelet.sets.labels import Names, relabelled
from tubelet.spec import replace
from tubelet.train.distributed.device import pick_device, set_threads
from tubelet.train.records.watch import Watch
from tubelet.video.lists.manifest import Manifest, VideoRef, check_unique, read_manifest
from tubelet.weights.classifier import SavedClassifier, load_classifier

SAY_EVERY: Final = 10
"""Share of the videos, in percent, after which progress is told."""


@dataclass(frozen=True)
class Rooted:
    """A list, and the folder that its paths start from."""

    source: Path
    root: Path


@dataclass(frozen=True)
class Evaluation:
    """What a test found. Accuracies are ratios in 0..1; `top5` is None where there are five classes or fewer.

    `videos` counts those that were scored; `missing` could not be read and enter no number.
    """

    top1: float
    top5: float | None
    mean_class_accuracy: float
    top1_interval: Interval
    videos: int
    clips: int
    crops: int
    missing: tuple[Skipped, ...]
    classes: tuple[ClassRow, ...]
    confusion: Int[np.ndarray, "C C"]
    out: Path


def evaluate(
    run: Path,
    source: Path | Rooted | Manifest,
    *,
    watch: Watch,
    clips: int | None = None,
    crops: int | None = None,
    allow_missing: bool = False,
    out: Path | None = None,
) -> Evaluation:
    """Score every video of `source` (folder, list or manifest) with the classifier of a finished fine-tuning run.

    Paths of a list start where those of the run's own lists do (`data.root`), unless it is `Rooted` elsewhere.
    Views are `clips` in time by `crops` in space, as the recipe says where not given. Writes metrics.json, classes.csv,
    confusion.csv, confusion.png and predictions.csv to `out` (default RUN/evaluation/SOURCE-CLIPSxCROPS).
    ValueError for a label that the run does not have, and for an unreadable video unless `allow_missing`: such a video
    is listed as missing and counts neither as right nor as wrong.
    """
    saved = load_classifier(run)
    manifest = source if isinstance(source, Manifest) else _read(source, saved)
    check_unique(manifest)
    for note in manifest.notes:
        watch.say(note)
    if saved.recipe.data.sources and manifest.classes is None:
        watch.say(f"{manifest.source}: its numbers are taken for lines of {CLASSES_FILE} of the run, from 0")
    videos = relabelled(manifest, saved.names)
    views = (clips or saved.recipe.views.clips, crops or saved.recipe.views.crops)
    folder = out or run / EVALUATION_FOLDER / f"{one_line(manifest.source.stem)}-{views[0]}x{views[1]}"
    open_folder(folder)
    device = _device(saved.recipe.run)
    watch.say(f"{len(videos)} videos, {views[0]} clips x {views[1]} crops each, on {device.type}")
    with worker_deaths():
        scored = score_videos(
            saved.classifier.to(device),
            videos,
            saved.recipe,
            views=views,
            device=device,
            on_bad=_bad(manifest, watch, allow_missing=allow_missing),
            on_progress=_progress(len(videos), watch),
        )
    if len(scored.index) == 0:
        raise ValueError(f"{manifest.source}: none of the {len(videos)} videos can be read")
    result = _measure(scored, saved.names, views=views, out=folder)
    _write(result, scored, videos, saved, manifest)
    return result


def _read(source: Path | Rooted, saved: SavedClassifier) -> Manifest:
    frames, root = saved.recipe.clip.frames, saved.recipe.data.root
    if isinstance(source, Rooted):
        return read_manifest(source.source, root=source.root, labelled=True, clip_frames=frames)
    return read_manifest(source, root=None if root is None else Path(root), labelled=True, clip_frames=frames)


def _device(run: Run) -> torch.device:
    """As the recipe says, but a model trained on a GPU may be tested without one."""
    set_threads(run)
    return pick_device(replace(run, device="auto") if run.device == "cuda" else run)


def _bad(manifest: Manifest, watch: Watch, *, allow_missing: bool) -> Callable[[Skipped], None]:
    def on_bad(bad: Skipped) -> None:
        if not allow_missing:
            raise ValueError(
                f"{one_line(str(bad.path))}: {bad.reason}; mend it, or leave it out with --allow-missing "
                f"(tubelet check {manifest.source} finds all such files)"
            )
        watch.say(f"missing: {bad.path}: {bad.reason}")

    return on_bad


def _progress(total: int, watch: Watch) -> Callable[[int], None]:
    told = 0

    def on_progress(done: int) -> None:
        nonlocal told
        percent = 100 * done // total
        if percent >= told + SAY_EVERY:
            told = percent
            watch.say(f"{done}/{total} videos")

    return on_progress


def _measure(scored: Scored, names: Names, *, views: tuple[int, int], out: Path) -> Evaluation:
    predicted = ranked(scored.scores, 1)[:, 0]
    counts = confusion(scored.labels, predicted, len(names))
    return Evaluation(
        top1=top_k(scored.scores, scored.labels, 1),
        top5=top_k(scored.scores, scored.labels, BEST) if len(names) > BEST else None,
        mean_class_accuracy=mean_class_accuracy(counts),
        top1_interval=wilson(int(counts.trace()), len(scored.labels)),
        videos=len(scored.labels),
        clips=views[0],
        crops=views[1],
        missing=scored.missing,
        classes=tuple(class_rows(counts, names)),
        confusion=counts,
        out=out,
    )


def _write(
    result: Evaluation, scored: Scored, videos: tuple[VideoRef, ...], saved: SavedClassifier, manifest: Manifest
) -> None:
    title = f"{saved.recipe.name} on {manifest.source.name}: top-1 {result.top1:.1%} of {result.videos} videos"
    write_results(result.out, scored, videos, names=saved.names, title=title)
    write_json(result.out / "metrics.json", _facts(result, saved, manifest))


def _facts(result: Evaluation, saved: SavedClassifier, manifest: Manifest) -> dict[str, Any]:
    return {
        "top1": result.top1,
        "top1_interval_95": list(result.top1_interval),
        "top5": result.top5,
        "mean_class_accuracy": result.mean_class_accuracy,
        "classes": len(saved.names),
        "videos": result.videos,
        "clips": result.clips,
        "crops": result.crops,
        "views": result.videos * result.clips * result.crops,
        "missing": [{"path": bad.name, "reason": bad.reason} for bad in result.missing],
        "source": str(manifest.source),
        "recipe": saved.recipe.name,
        "weights": str(saved.weights),
    }
