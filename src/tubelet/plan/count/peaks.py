"""How fast a device can multiply at best: what its vendor states for GPUs, a measured matrix product elsewhere.

The vendor's figures are of products without sparsity and, for bf16, summed in fp32 (docs/planning.md names the sheets).
"""

from __future__ import annotations

import functools
import re
import time
from dataclasses import dataclass
from typing import Final

import torch

from tubelet.plan.count.flops import count_flops
from tubelet.plan.count.step import plan_step
from tubelet.recipe import EncoderRun
from tubelet.spec import did_you_mean
from tubelet.train.distributed.device import pick_device, pick_precision
from tubelet.train.distributed.process_group import place
from tubelet.train.records.throughput import ThroughputScale

GB: Final = 10**9
TERA: Final = 10**12
TRIAL_SIZE: Final = 1024
TRIAL_SECONDS: Final = 0.05


@dataclass(frozen=True)
class Gpu:
    """A GPU as its data sheet has it: TFLOP/s dense, None where it has no bf16 units; memory in GB (10^9 bytes).

    `pattern` is searched in the name that `torch.cuda.get_device_name` gives.
    """

    name: str
    pattern: str
    bf16: float | None
    fp32: float
    memory: float


GPUS: Final = (
    Gpu("B200", r"\bB200\b", 2250.0, 75.0, 180.0),
    Gpu("GH200", r"\bGH200\b", 989.4, 66.9, 96.0),
    Gpu("H200", r"\bH200\b", 989.4, 66.9, 141.0),
    Gpu("H100-PCIe", r"\bH100 PCIe\b", 756.5, 51.2, 80.0),
    Gpu("H100-NVL", r"\bH100 NVL\b", 835.5, 60.0, 94.0),
    Gpu("H100", r"\bH100\b", 989.4, 66.9, 80.0),
    Gpu("A100-40GB", r"\bA100\b.*\b40GB\b", 312.0, 19.5, 40.0),
    Gpu("A100", r"\bA100\b", 312.0, 19.5, 80.0),
    Gpu("A40", r"\bA40\b", 149.7, 37.4, 48.0),
    Gpu("A30", r"\bA30\b", 165.0, 10.3, 24.0),
    Gpu("A10", r"\bA10\b", 125.0, 31.2, 24.0),
    Gpu("L40S", r"\bL40S\b", 362.05, 91.6, 48.0),
    Gpu("L40", r"\bL40\b", 181.05, 90.5, 48.0),
    Gpu("L4", r"\bL4\b", 121.0, 30.3, 24.0),
    Gpu("RTX-4090", r"\bRTX 4090\b", 165.2, 82.6, 24.0),
    Gpu("RTX-3090", r"\bRTX 3090\b(?! Ti)", 71.2, 35.6, 24.0),
    Gpu("V100", r"\bV100\b", None, 15.7, 32.0),
    Gpu("T4", r"\bT4\b", None, 8.1, 16.0),
)
"""The first pattern that fits counts, so special names come before plain ones."""


def gpu_named(name: str) -> Gpu:
    """The GPU that a user means by "H100" or "a100-40gb"; ValueError with the nearest name for others."""
    by_name = {gpu.name.lower(): gpu for gpu in GPUS}
    found = by_name.get(name.lower())
    if found is None:
        raise ValueError(
            f"unknown device {name!r}; {did_you_mean(name.lower(), by_name)} 'here' is this machine; "
            "a device that is not listed: take one that is like it, and change --mfu in proportion"
        )
    return found


def gpu_of(device_name: str) -> Gpu | None:
    """The GPU with this name of the driver's, None for one that the table does not have."""
    return next((gpu for gpu in GPUS if re.search(gpu.pattern, device_name, re.IGNORECASE)), None)


def peak_flops(device: torch.device, precision: torch.dtype) -> float | None:
    """FLOP/s that `device` reaches at best in `precision`: of the table, or measured once where it is a processor.

    None for a GPU without an entry: its share of an unknown peak says nothing.
    """
    if device.type == "cpu":
        return measured_peak(precision, torch.get_num_threads())
    if device.type != "cuda":
        return None
    gpu = gpu_of(torch.cuda.get_device_name(device))
    if gpu is None:
        return None
    stated = gpu.bf16 if precision is torch.bfloat16 else gpu.fp32
    return None if stated is None else stated * TERA


@functools.cache
def measured_peak(precision: torch.dtype, threads: int) -> float:
    """FLOP/s of a square product on the processor with so many threads: the best of 0.05 seconds, measured once."""
    del threads  # what the cache tells apart
    left = torch.full((TRIAL_SIZE, TRIAL_SIZE), 0.5, dtype=precision)  # no draw: a run's draws are its own
    left @ left
    best, begun = float("inf"), time.perf_counter()
    while time.perf_counter() - begun < TRIAL_SECONDS:
        started = time.perf_counter()
        left @ left
        best = min(best, time.perf_counter() - started)
    return 2.0 * TRIAL_SIZE**3 / best


def throughput_scale_of(recipe: EncoderRun) -> ThroughputScale:
    """What the clips of a run are worth; on a processor its peak is measured first, once.

    A teacher is looked at in its file: the network of the run has numbers, and a step without them would lose those.
    """
    run = recipe.run
    device = pick_device(run)
    return ThroughputScale(
        clip_flops=float(count_flops(plan_step(recipe)).training),
        devices=place().world,
        peak=peak_flops(device, pick_precision(run, device)),
    )
