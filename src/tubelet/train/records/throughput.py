"""How fast a run goes, how well it uses its devices, and how long it will take."""

from __future__ import annotations

import time
from dataclasses import dataclass

_WEIGHT_OF_LATEST = 0.3
_TERA = 1e12


@dataclass(frozen=True)
class ThroughputScale:
    """What clips/s are worth: FLOPs of training on a clip, devices that share the clips, FLOP/s of one at best.

    `peak` is None where it is not known.
    """

    clip_flops: float = 0.0
    devices: int = 1
    peak: float | None = None


@dataclass(frozen=True)
class Speed:
    """Since the last look. `waiting_ratio` is the share of the time spent waiting for data.

    `teraflops` are those of the model, in a second on one device; `mfu` is their share of its peak, if that is known.
    """

    clips_per_second: float
    waiting_ratio: float
    seconds_left: float
    teraflops: float
    mfu: float | None


class Throughput:
    """Counts clips and steps between looks; the time left follows a smoothed time per step."""

    def __init__(self, throughput_scale: ThroughputScale | None = None) -> None:
        self._scale = throughput_scale or ThroughputScale()
        self._since = time.perf_counter()
        self._clips = 0
        self._steps = 0
        self._waited_before = 0.0
        self._step_seconds: float | None = None

    def count(self, clips: int) -> None:
        """A step with this many clips was taken."""
        self._clips += clips
        self._steps += 1

    def look(self, *, steps_left: int, waited_seconds: float) -> Speed:
        """Speed since the last look. `waited_seconds` counts from the start of the run."""
        now = time.perf_counter()
        seconds = max(now - self._since, 1e-9)
        latest = seconds / max(self._steps, 1)
        before = self._step_seconds if self._step_seconds is not None else latest
        self._step_seconds = before + _WEIGHT_OF_LATEST * (latest - before)
        flops = self._clips / seconds * self._scale.clip_flops / self._scale.devices
        speed = Speed(
            clips_per_second=self._clips / seconds,
            waiting_ratio=min(1.0, (waited_seconds - self._waited_before) / seconds),
            seconds_left=steps_left * self._step_seconds,
            teraflops=flops / _TERA,
            mfu=None if self._scale.peak is None else flops / self._scale.peak,
        )
        self._since, self._clips, self._steps, self._waited_before = now, 0, 0, waited_seconds
        return speed

    def begin(self) -> None:
        """Start counting now: what happened since the last look was no training."""
        self._since, self._clips, self._steps = time.perf_counter(), 0, 0
