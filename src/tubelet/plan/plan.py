"""What a run of a recipe takes before it is started: parameters, FLOPs, memory, steps, hours (docs/planning.md).

Nothing here holds weights: all is counted in a step without numbers (`tubelet.plan.count.step`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tubelet.data.order import steps_per_epoch
from tubelet.plan.count.flops import Flops, count_flops
from tubelet.plan.count.memory import USABLE, DevicePlacement, Fewest, Memory, MemoryModel, PlannedBatch, share_out
from tubelet.plan.count.step import UNKNOWN_CLASSES, PlannedStep, Recipe, StepShape, plan_step
from tubelet.plan.equipment import HERE, Equipment, equipment
from tubelet.plan.measure.operators import step_seconds
from tubelet.plan.measure.real_steps import MEMORY_STEPS, MeasuredSteps, measure_steps
from tubelet.recipe import FinetuneRecipe, PretrainRecipe
from tubelet.sets.unlabelled import videos_of_epoch
from tubelet.spec import replace
from tubelet.weights.read import read_model

ASSUMED_EFFICIENCY: Final = 0.30
"""Share of the peak that a step reaches where nothing was measured: ViT-g 0.29 on 8 H100 and 0.44 on 8 A100 (NVIDIA
NeMo), a small compiled ViT 0.22 on an H100; published runs of VideoMAE 0.04 to 0.17 (docs/planning.md)."""
LONGEST_STEPS: Final = 300.0
"""Seconds that real steps may take, as estimated."""


@dataclass(frozen=True)
class Question:
    """What a plan is asked for.

    `videos` None: those of the recipe's data are counted. `efficiency` is for devices of the table, `steps` are real
    steps to take on this machine, 0 for none.
    """

    device: str = HERE
    count: int = 1
    videos: int | None = None
    efficiency: float = ASSUMED_EFFICIENCY
    steps: int = 3


@dataclass(frozen=True)
class PlannedSpeed:
    """Speed of a step over all devices. `by_part` is empty where nothing was measured."""

    step_seconds: float
    clips_per_second: float
    by_part: dict[str, float]


@dataclass(frozen=True)
class Course:
    """The whole run in numbers. `effective_epochs` counts each of a video's clips."""

    videos: int
    steps_per_epoch: int
    epochs: int
    effective_epochs: int
    steps: int
    hours: float
    device_hours: float


@dataclass(frozen=True)
class Plan:
    """All of it. `recomputed` and `kept` are the peak with and without checkpointing of the encoder's blocks.

    `lightest` is the peak where the decoder's are recomputed too; `fewest` devices of the kind hold the run at all.
    `course` is None where the number of videos is not known, `measured` where no real steps were; `notes` say why.
    """

    recipe: Recipe
    parameters: dict[str, int]
    shapes: StepShape
    flops: Flops
    equipment: Equipment
    efficiency: float | None
    batch: PlannedBatch
    placements: tuple[DevicePlacement, ...]
    kept: Memory
    recomputed: Memory
    lightest: Memory
    fewest: Fewest | None
    speed: PlannedSpeed
    course: Course | None
    measured: MeasuredSteps | None
    notes: tuple[str, ...]


def make_plan(recipe: Recipe, question: Question) -> Plan:
    """Plan a run; ValueError where recipe and devices do not fit each other, or data are not there."""
    step, videos = plan_step(recipe), _videos(recipe, question)  # what can be refused is, before anything is measured
    devices = equipment(recipe.run, question.device, question.count)
    batch = share_out(recipe, question.count)
    memory = MemoryModel(step, batch, devices)
    placements = memory.placements()
    form, flops = placements[0].form, count_flops(step, precision=devices.precision)
    speed = _speed(step, flops, devices, batch, question)
    measured, refused = _measured(recipe, devices, question, speed.step_seconds, placements[0].memory.peak)

    def estimate(**recomputing: bool) -> Memory:
        return MemoryModel(step.recomputing(**recomputing), batch, devices).estimate(form)

    return Plan(
        recipe=recipe,
        parameters=step.parameters(),
        shapes=step.shape(),
        flops=flops,
        equipment=devices,
        efficiency=None if devices.here is not None else question.efficiency,
        batch=batch,
        placements=placements,
        kept=estimate(encoder=False),
        recomputed=estimate(encoder=True),
        lightest=estimate(encoder=True, decoder=True),
        fewest=memory.fewest(),
        speed=speed,
        course=_course(recipe, question, videos, speed.step_seconds),
        measured=measured,
        notes=(*_assumptions(recipe), *refused),
    )


def count_parameters(recipe: Recipe) -> dict[str, int]:
    """Parameters of the parts and in total, without holding one of them."""
    return plan_step(recipe).parameters()


def _speed(
    step: PlannedStep, flops: Flops, devices: Equipment, batch: PlannedBatch, question: Question
) -> PlannedSpeed:
    by_part: dict[str, float] = {}
    if devices.here is not None:
        clips = batch.clips_per_piece
        pieces = batch.clips_per_device / clips
        by_part = step_seconds(step, devices.here, clips=clips, pieces=pieces, clip_flops=flops.executed)
        seconds = sum(by_part.values())
    else:
        assert devices.peak is not None
        seconds = batch.clips_per_device * flops.executed / (devices.peak * question.efficiency)
    return PlannedSpeed(seconds, batch.clips / seconds, by_part)


def _videos(recipe: Recipe, question: Question) -> int | None:
    """How many an epoch has, where that is known; ValueError where they are fewer than a batch."""
    videos = videos_of_epoch(recipe, _nobody_listens) if question.videos is None else question.videos
    if videos is not None:
        steps_per_epoch(videos, recipe.run.batch_size)
    return videos


def _course(recipe: Recipe, question: Question, videos: int | None, seconds: float) -> Course | None:
    if videos is None:
        return None
    each = steps_per_epoch(videos, recipe.run.batch_size)
    epochs = recipe.schedule.epochs
    hours = epochs * each * seconds / 3600
    return Course(
        videos=videos,
        steps_per_epoch=each,
        epochs=epochs,
        effective_epochs=epochs * recipe.data.views,
        steps=epochs * each,
        hours=hours,
        device_hours=hours * question.count,
    )


def _measured(
    recipe: Recipe, devices: Equipment, question: Question, seconds: float, peak: int
) -> tuple[MeasuredSteps | None, list[str]]:
    """Real steps of one device's share of the batch, or why there are none."""
    if devices.here is None or question.steps == 0:
        return None, []
    expected = seconds * (1 + question.steps + MEMORY_STEPS)
    if expected > LONGEST_STEPS:
        few = max(1, int(recipe.run.batch_size * LONGEST_STEPS / (2 * expected)))
        smaller = f"run.batch_size={few} run.accumulate=1"
        return None, [f"no real steps: they would take about {expected:.0f} s; {smaller} can be measured"]
    if peak > USABLE * devices.memory_bytes:
        return None, ["no real steps: their memory would not fit"]
    share = recipe.run.batch_size // question.count
    alone: Any = replace(recipe, run=replace(recipe.run, batch_size=share))
    return measure_steps(alone, steps=question.steps), []


def _nobody_listens(line: str) -> None:
    del line


def _assumptions(recipe: Recipe) -> list[str]:
    if not isinstance(recipe, FinetuneRecipe):
        return target_notes(recipe)
    taken = f"the number of classes is not known before the labels are: {UNKNOWN_CLASSES} taken"
    return [*([taken] if recipe.outputs is None else []), *teacher_notes(recipe)]


def teacher_notes(recipe: FinetuneRecipe) -> list[str]:
    """A line for the user where the recipe has a teacher. ValueError where its file is damaged or no classifier."""
    if recipe.distill is None:
        return []
    left_out = "the teacher's forward pass and weights are not in these numbers"
    if recipe.distill.teacher is None or not Path(recipe.distill.teacher).exists():
        return [f"{left_out}; with distill.teacher naming one that is here they would be told"]
    found = read_model(Path(recipe.distill.teacher))
    if not isinstance(found.recipe, FinetuneRecipe) or not found.has_head:
        raise ValueError(f"{found.file}: no classes in it ({found.format}), so it cannot be a teacher")
    numbers = sum(math.prod(value.shape) for value in found.state.values())
    forward = count_flops(plan_step(found.recipe)).forward
    student = count_flops(plan_step(replace(recipe, distill=None))).training
    return [
        f"{left_out}: {forward / 1e9:.4g} G a clip, {forward / student:.0%} of the student's training; "
        f"{4 * numbers / 1e9:.3g} GB whole on each device"
    ]


def target_notes(recipe: PretrainRecipe) -> list[str]:
    """A line for the user where a frozen network gives the targets."""
    return [
        f"the network that gives the targets ({spec.teacher}) is in no number here but those of real steps; "
        "each device holds it whole"
        for spec in recipe.target.specs
        if spec.asks is not None
    ]
