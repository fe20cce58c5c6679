"""Learning rates of a whole run, one per step."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from jaxtyping import Float64

from tubelet.recipe import Optim, Schedule

REFERENCE_BATCH: Final = 256


def cosine(
    base: float, final: float, *, steps: int, warmup_steps: int = 0, start: float = 0.0
) -> Float64[np.ndarray, " steps"]:
    """Linear warm-up from `start` to `base`, then half a cosine towards `final` (VideoMAE `utils.py:cosine_scheduler`).

    The base value comes twice, as the last of the warm-up and the first of the cosine, and `final` would be the value
    of the step after the last one. ValueError where the warm-up does not fit.
    """
    if warmup_steps > steps:
        raise ValueError(f"the warm-up of {warmup_steps} steps is longer than the whole run of {steps}")
    length = steps - warmup_steps
    falling = [final + 0.5 * (base - final) * (1 + math.cos(math.pi * step / length)) for step in range(length)]
    return np.concatenate([np.linspace(start, base, warmup_steps), np.array(falling, dtype=np.float64)])


def learning_rates(
    optim: Optim, schedule: Schedule, *, batch_size: int, steps_per_epoch: int
) -> Float64[np.ndarray, " steps"]:
    """The rate of every step: all three rates of the recipe are per 256 videos and scale with the batch."""
    if schedule.warmup_epochs > schedule.epochs:
        raise ValueError(
            f"schedule.warmup_epochs {schedule.warmup_epochs:g} is more than schedule.epochs {schedule.epochs}"
        )
    scale = batch_size / REFERENCE_BATCH
    return cosine(
        optim.lr * scale,
        schedule.min_lr * scale,
        steps=schedule.epochs * steps_per_epoch,
        warmup_steps=int(schedule.warmup_epochs * steps_per_epoch),
        start=schedule.start_lr * scale,
    )
