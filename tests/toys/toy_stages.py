"""Three stages that take seconds: two unlabelled sets, a labelled hybrid, a target set; and a way to kill them."""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from toy_labelled import toy_recipe, write_video
from toy_run import Notes

from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.recipe import (
    Data,
    FinetuneRecipe,
    LabelledData,
    LabelledSource,
    Optim,
    PretrainRecipe,
    ProgressiveRecipe,
    Run,
    SameClasses,
    Schedule,
    SingleRun,
    Stage,
    VideoSource,
    Views,
    resolved,
)
from tubelet.runs.stages.run import run_stages
from tubelet.spec import replace
from tubelet.train.distributed.signals import Interrupted
from tubelet.train.records.watch import RunFacts, StepReport
from tubelet.types import ClipShape
from tubelet.video.sample import Segments

LEVELS = {"bright": 190, "dark": 60, "grey": 120}
ENCODER = ViTSpec(width=32, depth=1, heads=2, patch=8)
RUN = Run(batch_size=4, precision="fp32", device="cpu", save_every=2, log_every=1, threads=1)
SCHEDULE = Schedule(epochs=2, warmup_epochs=1)


def material(folder: Path) -> Path:
    """Unlabelled one.txt, two.txt; a.csv (bright, dark) and b.csv (dark, grey); target/ with a folder a class."""
    rows: dict[str, list[str]] = {"a.csv": [], "b.csv": [], "one.txt": [], "two.txt": []}
    for number in range(4):
        for place, (name, level) in enumerate(LEVELS.items()):
            path = f"videos/{name}-{number}.mp4"
            write_video(folder / path, level, seed=10 * number + place)
            rows[("one.txt", "two.txt")[number % 2]].append(path)
            if name == "bright" or (name == "dark" and number % 2):
                rows["a.csv"].append(f"{path} {name}")
            else:
                rows["b.csv"].append(f"{path} {name}")
    for name, lines in rows.items():
        (folder / name).write_text("\n".join(lines) + "\n")
    for place, name in enumerate(("dark", "bright", "green")):
        for number in range(2):
            write_video(
                folder / "target" / name / f"{number}.mp4", LEVELS.get(name, 90), seed=100 + 10 * number + place
            )
    return folder


def pretrain_recipe(folder: Path) -> PretrainRecipe:
    return PretrainRecipe(
        name="toy-pretrain",
        clip=ClipShape(frames=4, size=16),
        data=Data(
            sources=tuple(VideoSource(videos=str(folder / name)) for name in ("one.txt", "two.txt")),
            sampler=Segments(),
            workers=0,
        ),
        model=MaskedAutoencoderSpec(encoder=ENCODER, decoder=DecoderSpec(width=16, depth=1, heads=2)),
        mask={"kind": "tube", "ratio": 0.5},
        optim=Optim(lr=0.05),
        schedule=SCHEDULE,
        run=RUN,
    )


def post_recipe(folder: Path) -> FinetuneRecipe:
    sources = tuple(LabelledSource(train=str(folder / name)) for name in ("a.csv", "b.csv"))
    return _labelled(LabelledData(sources=sources, sampler=Segments(), workers=0, views=2), name="toy-post")


def target_recipe(folder: Path) -> FinetuneRecipe:
    data = LabelledData(
        train=str(folder / "target"), val=str(folder / "target"), sampler=Segments(), workers=0, views=1
    )
    return replace(_labelled(data, name="toy-target"), start_head=SameClasses())


def _labelled(data: LabelledData, *, name: str) -> FinetuneRecipe:
    recipe = toy_recipe(data=data, schedule=SCHEDULE, run=RUN, views=Views(clips=1, crops=1), name=name)
    return replace(recipe, model=replace(recipe.model, encoder=replace(ENCODER, drop_path=0.1)))


def toy_stages(folder: Path) -> ProgressiveRecipe:
    """Steps of the stages: 6, 6, 2; the last one is tested on its own videos."""
    stages = (
        Stage(name="pretrain", recipe=pretrain_recipe(folder)),
        Stage(name="post", recipe=post_recipe(folder)),
        Stage(name="target", recipe=target_recipe(folder), evaluate=True),
    )
    return filled(ProgressiveRecipe(name="toy", stages=stages))


def filled(recipe: ProgressiveRecipe) -> ProgressiveRecipe:
    def find(name: str) -> SingleRun:
        raise ValueError(f"no recipe {name}")

    return resolved(recipe, find)


@dataclass
class Fatal(Notes):
    """Sends `signal` to this process: after a step of a stage (`1-pretrain`), or at a line that has `line` in it."""

    stage: str = ""
    step_number: int = 0
    line: str = ""
    signal: int = 9

    def start(self, facts: RunFacts) -> None:
        super().start(facts)

    def step(self, report: StepReport) -> None:
        super().step(report)
        if self.facts[-1].out.name == self.stage and report.step == self.step_number:
            os.kill(os.getpid(), self.signal)

    def say(self, line: str) -> None:
        super().say(line)
        if self.line and self.line in line:
            os.kill(os.getpid(), self.signal)


def in_process(work: Callable[[], None]) -> int | None:
    """`work` in a forked process, so that torch need not be loaded again; its exit code as the command's would be."""
    child = multiprocessing.get_context("fork").Process(target=_be, args=(work,))
    child.start()
    child.join(120)
    return child.exitcode


def _be(work: Callable[[], None]) -> None:
    torch.set_num_threads(1)
    code = 0
    try:
        work()
    except Interrupted as stop:
        code = 128 + stop.signal
    except ValueError as error:
        print(error, file=sys.stderr)
        code = 2
    except BaseException:  # noqa: BLE001  the test sees it in its captured output
        traceback.print_exc()
        code = 1
    os._exit(code)


def killed(recipe: ProgressiveRecipe, out: Path, watch: Fatal) -> int | None:
    return in_process(lambda: void(run_stages(recipe, out, watch)))


def void(_: object) -> None:
    """For a lambda that is to give nothing."""
