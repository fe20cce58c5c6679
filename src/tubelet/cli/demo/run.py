"""The stages of the demo, each of which is done once and goes on where it was stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tubelet.cli.demo.story import story_of
from tubelet.data.synthetic.videos import SyntheticSet, make_dataset
from tubelet.disk.lock import open_folder, write_text
from tubelet.doctor.machine import cores
from tubelet.eval.evaluate import evaluate
from tubelet.pictures.report import Contender, read_metrics, write_report
from tubelet.recipe import FinetuneRecipe
from tubelet.recipes.demo import DATA, PRETRAINED, Demo
from tubelet.runs.finetune import finetune
from tubelet.runs.pretrain import pretrain
from tubelet.train.records.watch import Watch

STAGES: Final = "stages.json"
REPORT: Final = "report.html"
NAMES: Final = {"finetuned": "pre-trained", "scratch": "from scratch"}
"""What the two runs are called, by their folders."""


@dataclass(frozen=True)
class DemoResult:
    """Top-1 as (value, low, high) by name, in ratios; seconds of each stage, over all calls; the page."""

    top1: dict[str, tuple[float, float, float]]
    seconds: dict[str, float]
    report: Path


class Stages:
    """Which stages are done and how long they took, in a file; stopped calls count too."""

    def __init__(self, out: Path, seed: int) -> None:
        self._path, self._seed = out / STAGES, seed
        self.seconds: dict[str, float] = {}
        self._done: set[str] = set()
        if self._path.is_file():
            self._read()

    def is_done(self, name: str) -> bool:
        return name in self._done

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside; done if it ends well."""
        started = time.perf_counter()
        try:
            yield
            self._done.add(name)
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
            record = {"seed": self._seed, "done": sorted(self._done), "seconds": self.seconds}
            write_text(self._path, json.dumps(record, indent=1))

    def _read(self) -> None:
        try:
            kept = json.loads(self._path.read_text())
            seed, self._done, self.seconds = kept["seed"], set(kept["done"]), dict(kept["seconds"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self._path}: damaged; delete {self._path.parent} or choose another --out") from error
        if seed != self._seed:
            raise ValueError(
                f"{self._path.parent} holds a demo with seed {seed}; choose another --out for seed {self._seed}"
            )


def run_demo(demo: Demo, out: Path, watch: Watch, *, on_videos: Callable[[int, int], None] | None = None) -> DemoResult:
    """All stages that are left. ValueError where the folder holds another demo, Interrupted when told to stop."""
    open_folder(out)
    stages = Stages(out, demo.seed)
    with stages.stage("make videos"):
        watch.say(f"1/5  {demo.videos.total:,} videos in {out / DATA}")
        data = make_dataset(out / DATA, demo.videos, workers=min(cores(), 8), on_progress=on_videos)
    if not stages.is_done("pre-train"):
        watch.say(f"2/5  pre-training on {demo.videos.unlabelled:,} unlabelled videos")
        with stages.stage("pre-train"):
            pretrain(demo.pretrain, out / PRETRAINED, watch)
    _contend(demo.finetune, out / "finetuned", data, stages=stages, watch=watch, place="3/5")
    _contend(demo.scratch, out / "scratch", data, stages=stages, watch=watch, place="4/5")
    contenders = tuple(Contender(name, out / run, out / run / "test") for run, name in NAMES.items())
    watch.say("5/5  report")
    with stages.stage("report"):
        write_report(story_of(demo, out, data, contenders=contenders, seconds=stages.seconds), out / REPORT)
    return DemoResult({one.name: _top1(one) for one in contenders}, stages.seconds, out / REPORT)


def _contend(
    recipe: FinetuneRecipe, run: Path, data: SyntheticSet, *, stages: Stages, watch: Watch, place: str
) -> None:
    """Train a classifier and test it."""
    name = NAMES[run.name]
    if not stages.is_done(f"train, {name}"):
        watch.say(f"{place}  training on the labelled videos, {name}")
        with stages.stage(f"train, {name}"):
            finetune(recipe, run, watch)
    if not stages.is_done(f"test, {name}"):
        with stages.stage(f"test, {name}"):
            evaluate(run, data.test, watch=watch, out=run / "test")


def _top1(contender: Contender) -> tuple[float, float, float]:
    metrics = read_metrics(contender.evaluation)
    low, high = metrics["top1_interval_95"]
    return metrics["top1"], low, high
