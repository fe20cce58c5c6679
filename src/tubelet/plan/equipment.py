"""The devices that a plan is for: one of the table of GPUs, or what this machine has."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

import torch

from tubelet.doctor.machine import memory_bytes
from tubelet.plan.count.peaks import GB, TERA, gpu_named, peak_flops
from tubelet.recipe import Run
from tubelet.train.distributed.device import pick_device, pick_precision, set_threads

HERE: Final = "here"


@dataclass(frozen=True)
class Device:
    """A device of this machine, and the precision of matrix products there."""

    device: torch.device
    precision: torch.dtype

    def now(self) -> float:
        """Seconds of a clock, when all that the device was given is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


@dataclass(frozen=True)
class Equipment:
    """`count` devices alike. `peak` in FLOP/s of one, None where unknown; `here` where time can be measured."""

    name: str
    count: int
    precision: torch.dtype
    memory_bytes: int
    peak: float | None
    here: Device | None = None

    @property
    def number(self) -> int:
        """Bytes of a number in the run's precision."""
        return 2 if self.precision is torch.bfloat16 else 4

    @property
    def on_gpu(self) -> bool:
        return self.here is None or self.here.device.type == "cuda"


def equipment(run: Run, name: str, count: int) -> Equipment:
    """`count` devices of this name, or of this machine for "here", in the precision of the recipe there.

    ValueError for an unknown name, or where the device does not compute in that precision.
    """
    return _this_machine(run, count) if name == HERE else _listed(run, name, count)


def _listed(run: Run, name: str, count: int) -> Equipment:
    gpu = gpu_named(name)
    in_bf16 = gpu.bf16 is not None if run.precision == "auto" else run.precision == "bf16"
    peak = gpu.bf16 if in_bf16 else gpu.fp32
    if peak is None:
        raise ValueError(f"{gpu.name} has no units for bf16; set run.precision=fp32")
    precision = torch.bfloat16 if in_bf16 else torch.float32
    return Equipment(gpu.name, count, precision, int(gpu.memory * GB), peak * TERA)


def _this_machine(run: Run, count: int) -> Equipment:
    set_threads(run)
    device = pick_device(run)
    here = Device(device, pick_precision(run, device))
    if device.type == "cuda":
        facts = torch.cuda.get_device_properties(device)
        name, memory = facts.name, facts.total_memory
    else:
        threads = torch.get_num_threads()
        name = f"this processor with {threads} thread{'s' if threads > 1 else ''}"
        found = memory_bytes()
        if found is None:
            raise ValueError("this system does not say how much memory it has; name the GPU to plan for with --device")
        memory = found
    return Equipment(name, count, here.precision, memory, peak_flops(device, here.precision), here)
