"""A run that takes a second: tiny model, clips made of numbers. Also a program, so that it can be killed.

python toy_run.py OUT '{"recipe": ["run.batch_size=4"], "kill": {"step": 5, "signal": 15}}'
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tubelet.data.dataset import Sample, Skipped
from tubelet.masks import MaskRules, Tube, draw_mask
from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.methods.classifier import ClassifierSpec, Finetuning
from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.recipe import Data, FinetuneRecipe, LabelledData, Optim, PretrainRecipe, Run, Schedule, override
from tubelet.rng import generator, step_rng
from tubelet.train.distributed.signals import Interrupted
from tubelet.train.job import Job
from tubelet.train.loop import fit
from tubelet.train.optim import Ema, parameter_groups
from tubelet.train.records.watch import RunFacts, StepReport
from tubelet.types import ClipShape, Cube
from tubelet.video.lists.manifest import VideoRef

CLIP = ClipShape(frames=4, size=16)
VIT = ViTSpec(width=24, depth=2, heads=2, patch=8, tubelet=2, drop_path=0.2)
CLASSES = 3


def pretrain_recipe(*changes: str) -> PretrainRecipe:
    recipe = PretrainRecipe(
        name="toy",
        clip=CLIP,
        data=Data(videos="none", workers=0),
        model=MaskedAutoencoderSpec(encoder=VIT, decoder=DecoderSpec(width=16, depth=1, heads=2)),
        mask=Tube(ratio=0.5),
        optim=Optim(lr=0.05),
        schedule=Schedule(epochs=3, warmup_epochs=1),
        run=Run(batch_size=4, device="cpu", precision="fp32", log_every=1, save_every=4, threads=1),
    )
    return override(recipe, list(changes))


def finetune_recipe(*changes: str) -> FinetuneRecipe:
    recipe = FinetuneRecipe(
        name="toy",
        clip=CLIP,
        data=LabelledData(train="none", workers=0),
        model=ClassifierSpec(encoder=VIT, dropout=0.1),
        classes=CLASSES,
        ema=0.9,
        optim=Optim(lr=0.05, layer_decay=0.75),
        schedule=Schedule(epochs=3, warmup_epochs=1),
        run=Run(batch_size=4, device="cpu", precision="fp32", log_every=1, save_every=4, threads=1),
    )
    return override(recipe, list(changes))


@dataclass(frozen=True)
class ToySet:
    """Clips of numbers drawn by (seed, epoch, index); the videos in `bad` cannot be read."""

    count: int = 14
    bad: tuple[int, ...] = ()
    labelled: bool = False
    die_at: int | None = None
    videos: Sequence[VideoRef] = field(init=False)

    def __post_init__(self) -> None:
        videos = tuple(VideoRef(Path(f"videos/{index}.mp4"), None, f"{index}.mp4") for index in range(self.count))
        object.__setattr__(self, "videos", videos)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: tuple[int, int]) -> Sample | Skipped:
        epoch, index = key
        if index in self.bad:
            return Skipped(index, f"{index}.mp4", self.videos[index].path, "is\nbroken")
        if index == self.die_at:
            os._exit(3)
        rng = generator(7, epoch, index)
        return toy_sample(index, rng, labelled=self.labelled)


def toy_sample(index: int, rng: np.random.Generator, *, labelled: bool) -> Sample:
    label = index % CLASSES
    noise = rng.integers(0, 150, (3, CLIP.frames, CLIP.size, CLIP.size), dtype=np.uint8)
    video = torch.from_numpy(noise) + 50 * label
    masks = draw_mask(MaskRules(Tube(ratio=0.5)), CLIP.grid(Cube(2, 8, 8)), rng)
    return Sample(index, video[None], masks.stacked(), label if labelled else None)


@dataclass
class Notes:
    """A watch that remembers, and calls `act` with each report."""

    act: Callable[[StepReport], None] = lambda report: None
    facts: list[RunFacts] = field(default_factory=list)
    reports: list[StepReport] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    finished: int = 0

    def start(self, facts: RunFacts) -> None:
        self.facts.append(facts)

    def step(self, report: StepReport) -> None:
        self.reports.append(report)
        self.act(report)

    def say(self, line: str) -> None:
        self.lines.append(line)

    def finish(self) -> None:
        self.finished += 1


def pretrain_job(out: Path, *changes: str, dataset: Any = None) -> Job:
    recipe = pretrain_recipe(*changes)
    with step_rng(recipe.seed, 0):
        method = recipe.model.build(recipe.clip, recipe.target)
    groups = parameter_groups(method, weight_decay=recipe.optim.weight_decay)
    return Job(recipe, out, method, groups, ToySet() if dataset is None else dataset)


def finetune_job(out: Path, *changes: str, dataset: Any = None) -> Job:
    recipe = finetune_recipe(*changes)
    with step_rng(recipe.seed, 0):
        method = Finetuning(recipe.model.build(recipe.clip, CLASSES), recipe.mixing)
    groups = parameter_groups(
        method,
        weight_decay=recipe.optim.weight_decay,
        layer_decay=recipe.optim.layer_decay,
        encoder=method.classifier.encoder,
    )
    ema = None if recipe.ema is None else Ema(method, decay=recipe.ema)

    def measure(epoch: int) -> Mapping[str, float]:
        weights = (ema.average if ema else method).state_dict()["classifier.head.weight"]
        return {"epoch_seen": float(epoch), "head": float(weights.abs().sum())}

    dataset = ToySet(labelled=True) if dataset is None else dataset
    return Job(recipe, out, method, groups, dataset, after_epoch=measure, ema=ema)


def log_lines(out: Path) -> list[str]:
    return (out / "log.jsonl").read_text().splitlines()


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log_lines(out)]


def killer(step: int, signal: int, *, group: bool = False) -> Callable[[StepReport], None]:
    """Sends the signal to this process, or to its group with all workers, once the step is reported."""

    def act(report: StepReport) -> None:
        if report.step == step:
            os.kill(0 if group else os.getpid(), signal)

    return act


def main() -> int:
    torch.set_num_threads(1)
    options = json.loads(sys.argv[2])
    notes = Notes(act=killer(**options["kill"])) if "kill" in options else Notes()
    build = finetune_job if options.get("finetune") else pretrain_job
    try:
        fit(build(Path(sys.argv[1]), *options.get("recipe", [])), notes)
    except Interrupted as stop:
        return 128 + stop.signal
    finally:
        for line in notes.lines:
            print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
