"""Test a fine-tuned run on labelled videos: many views each, accuracy, tables, a picture, predictions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from tubelet.data.class_names import Names
from tubelet.data.dataset import Skipped
from tubelet.data.workers.loader import worker_deaths
from tubelet.disk.layout import CLASSES_FILE, EVALUATION_FOLDER
from tubelet.disk.write import open_folder
from tubelet.eval.reports import REPORTS, ClassEvaluation, Evaluation, Tested, report_of_numbers
from tubelet.eval.scoring import score_videos
from tubelet.names import one_line
from tubelet.recipe import Run
from tubelet.spec import replace
from tubelet.train.distributed.device import pick_device, set_threads
from tubelet.train.records.watch import Watch
from tubelet.video.lists.manifest import Manifest, VideoRef, check_unique, read_manifest
from tubelet.weights.classifier import SavedClassifier, load_classifier

__all__ = ["ClassEvaluation", "Evaluation", "Rooted", "evaluate"]

SAY_EVERY: Final = 10
"""Share of the videos, in percent, after which progress is told."""


@dataclass(frozen=True)
class Rooted:
    """A list, and the folder that its paths start from."""

    source: Path
    root: Path


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
    Views are `clips` in time by `crops` in space, as the recipe says where not given. Writes metrics.json,
    predictions.csv and, for classes, classes.csv, confusion.csv and confusion.png to `out` (default
    RUN/evaluation/SOURCE-CLIPSxCROPS); for classes it returns a `ClassEvaluation`.
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
    task = saved.recipe.task
    videos = task.labelled(manifest, _names(saved))
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
    tested = _tested(saved, manifest, videos, views=views, out=folder)
    return REPORTS.get(task.kind, report_of_numbers)(scored, tested)


def _names(saved: SavedClassifier) -> Names:
    return saved.names if saved.recipe.task.gives_classes else ()


def _tested(
    saved: SavedClassifier, manifest: Manifest, videos: tuple[VideoRef, ...], *, views: tuple[int, int], out: Path
) -> Tested:
    return Tested(
        task=saved.recipe.task,
        names=_names(saved),
        videos=videos,
        views=views,
        out=out,
        title=f"{saved.recipe.name} on {manifest.source.name}",
        facts={"source": str(manifest.source), "recipe": saved.recipe.name, "weights": str(saved.weights)},
    )


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
