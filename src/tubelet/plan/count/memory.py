"""Memory of a training step on one device: what a step without numbers holds, and what lies still beside it.

Bytes for each parameter: 4 the weight, 4 its gradient, 8 AdamW, 4 the average (`ema`); fp32, whatever the precision.
Clips wait as bytes, on a GPU two steps of them. All else is made in a step and followed there (`StepTrace`). The peak
is the largest of its moments, the making of targets among them (a target's `peak_bytes`), and of the update (all
gradients).

A model is placed whole on each device (one device, or DDP), or its weights, gradients, AdamW and average are divided by
the devices (FSDP). Then weights and gradients of two blocks are whole for a while, and so are weights outside blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from tubelet.plan.count.step import META, PlannedStep, Recipe
from tubelet.plan.count.trace import PARAMETER_BYTES, trace_step
from tubelet.plan.equipment import Equipment
from tubelet.recipe import FinetuneRecipe

ADAMW_BYTES: Final = 8
USABLE: Final = 0.9
"""Share of a device's memory that a plan may fill."""
MOST_CLIPS: Final = 2**16


@dataclass(frozen=True)
class Memory:
    """Bytes on one device at the peak of a step. `moment` says when that is; `passing` are what only it needs."""

    weights: int
    average: int
    optimiser: int
    gradients: int
    copies: int
    batch: int
    activations: dict[str, int]
    passing: int
    moment: str
    peak: int


@dataclass(frozen=True)
class PlannedBatch:
    """Videos of a step; clips (videos times views) of a step, on one device, and in a piece there."""

    videos: int
    clips: int
    clips_per_device: int
    pieces: int
    clips_per_piece: int


@dataclass(frozen=True)
class DevicePlacement:
    """One way to place the model: the peak of a step, and the most clips of a piece that fit (0: not one)."""

    form: str
    memory: Memory
    largest_piece: int


@dataclass(frozen=True)
class Fewest:
    """The fewest devices of a kind that hold a run, and the most clips of a piece that fit there.

    More than one share weights, gradients and optimiser (`run.parallel=fsdp`); `memory` is for pieces of one clip.
    """

    count: int
    largest_piece: int
    memory: Memory


@dataclass(frozen=True)
class _Setting:
    """How a step runs on one device: `clips` of a piece, `loaded` clips of all its pieces.

    `gradients_stay`: they are there during forward, because pieces add up or DDP keeps its buckets. `shards`: devices
    that share weights, gradients and optimiser; 1 is all of them whole on each.
    """

    clips: int
    loaded: int
    gradients_stay: bool
    shards: int = 1


def share_out(recipe: Recipe, count: int) -> PlannedBatch:
    """The batch over `count` devices; ValueError where it is no multiple of them."""
    videos = recipe.run.batch_size
    if videos % count:
        raise ValueError(f"run.batch_size {videos} is not a multiple of the {count} devices")
    clips = videos * recipe.data.views
    pieces = min(recipe.run.accumulate, clips // count)
    return PlannedBatch(videos, clips, clips // count, pieces, -(-clips // (count * pieces)))


class MemoryModel:
    """Estimates the memory of steps of a recipe on some equipment, for any placement and number of clips."""

    def __init__(self, step: PlannedStep, batch: PlannedBatch, equipment: Equipment) -> None:
        recipe = step.recipe
        self._step, self._shape, self._batch, self._equipment = step, step.shape(), batch, equipment
        self._parameters = step.parameters()["total"]
        self._averaged = isinstance(recipe, FinetuneRecipe) and recipe.ema is not None
        self._buffers = sum(value.nbytes for value in step.model.buffers())
        blocks = [sum(value.numel() for value in one.parameters()) for one in step.blocks()]
        rest = self._parameters - sum(blocks)
        self._gathered = PARAMETER_BYTES * (2 * 2 * max(blocks, default=0) + rest)
        device = META if equipment.on_gpu or equipment.here is None else equipment.here.device
        self._trace = trace_step(step, device=device, precision=equipment.precision)
        counts = [(*moment.bytes, moment.gradients) for moment in self._trace.moments]
        self._fixed, self._each, self._gradients = np.array(counts, dtype=np.int64).T

    def placements(self) -> tuple[DevicePlacement, ...]:
        """All forms that the devices allow, the usual one first."""
        forms = ["one device"] if self._equipment.count == 1 else ["ddp", "fsdp"]
        return tuple(
            DevicePlacement(form, self.estimate(form), self._largest(partial(self.estimate, form))) for form in forms
        )

    def fewest(self) -> Fewest | None:
        """The fewest devices, of numbers that divide the batch, that hold a step; None where no number does."""
        videos = self._batch.videos
        for count in (one for one in range(1, videos + 1) if videos % one == 0):
            estimate = partial(self._in_pieces, count)
            largest = self._largest(estimate)
            if largest:
                return Fewest(count, largest, estimate(clips=1))
        return None

    def estimate(self, form: str, *, clips: int | None = None) -> Memory:
        """The peak of a step with these clips in a piece."""
        count = self._equipment.count
        return self._memory(
            _Setting(
                clips=self._batch.clips_per_piece if clips is None else clips,
                loaded=self._loaded(count),
                gradients_stay=form == "ddp" or self._batch.pieces > 1,
                shards=count if form == "fsdp" else 1,
            )
        )

    def _in_pieces(self, count: int, *, clips: int) -> Memory:
        """The peak of a step that `count` devices share, in pieces of so many clips."""
        return self._memory(_Setting(clips, self._loaded(count), gradients_stay=True, shards=count))

    def _loaded(self, count: int) -> int:
        """Clips on one of `count` devices; on a GPU the next batch is there already."""
        return self._batch.clips // count * (2 if self._equipment.on_gpu else 1)

    def _memory(self, setting: _Setting) -> Memory:
        trace, clips, share = self._trace, setting.clips, -(-self._parameters // setting.shards)
        gradients, still = PARAMETER_BYTES * share, self._still(setting, share)
        moment, extra, of_gradients = self._largest_moment(setting, gradients)
        activations = {name: kept.of(clips) for name, kept in trace.kept.items()}
        during = 0 if moment == "update" else trace.copies + sum(activations.values())
        return Memory(
            **still,
            gradients=gradients,
            copies=trace.copies,
            activations=activations,
            passing=max(0, extra - during - of_gradients),
            moment=moment,
            peak=sum(still.values()) + extra,
        )

    def _still(self, setting: _Setting, share: int) -> dict[str, int]:
        gathered = self._gathered if setting.shards > 1 else 0
        return {
            "weights": PARAMETER_BYTES * share + gathered + self._buffers,
            "average": PARAMETER_BYTES * share if self._averaged else 0,
            "optimiser": ADAMW_BYTES * share,
            "batch": setting.loaded * self._shape.clip_bytes,
        }

    def _largest_moment(self, setting: _Setting, gradients: int) -> tuple[str, int, int]:
        """Name, bytes beyond what lies still, gradients among them."""
        moments, shape = self._trace.moments, self._shape
        there = self._gradients // setting.shards if not setting.gradients_stay else np.full(len(moments), gradients)
        extra = self._fixed + setting.clips * self._each + there
        if self._trace.targets is not None and shape.target is not None:
            extra[self._trace.targets] += shape.target.peak_bytes(setting.clips, on_cpu=not self._equipment.on_gpu)
        largest = int(extra.argmax())
        if extra[largest] < gradients:
            return "update", gradients, gradients
        return moments[largest].name, int(extra[largest]), int(there[largest])

    def _largest(self, estimate: Callable[..., Memory]) -> int:
        """By halving: more clips never take less."""
        usable = int(USABLE * self._equipment.memory_bytes)
        fits, fails = 0, MOST_CLIPS
        while fails - fits > 1:
            middle = (fits + fails) // 2
            if estimate(clips=middle).peak <= usable:
                fits = middle
            else:
                fails = middle
        return fits
