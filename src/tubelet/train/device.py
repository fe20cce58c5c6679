"""Where a run computes, and in which numbers."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from tubelet.recipe import Run


def pick_device(run: Run) -> torch.device:
    """The device of the recipe; "auto" is the GPU where there is one. ValueError where it is not there."""
    if run.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("run.device=cuda, but this machine has no usable GPU; `tubelet doctor` says why")
    if run.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(run.device)


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 numbers by itself."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able = torch.cpu.get_capabilities()
    return bool(able.get("amx_bf16") or able.get("avx512_bf16") or able.get("bf16"))


def pick_precision(run: Run, device: torch.device) -> torch.dtype:
    """float32 or bfloat16; "auto" is bfloat16 where the device is made for it."""
    if run.precision == "auto":
        return torch.bfloat16 if has_fast_bf16(device) else torch.float32
    return torch.bfloat16 if run.precision == "bf16" else torch.float32


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager[None]:
    """Inside, matrix products run in `precision`; weights stay float32.

    Copies of weights are not kept for a second use, for there is none: they would outlive blocks that are recomputed.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision is torch.bfloat16, cache_enabled=False)


def set_threads(run: Run) -> None:
    """Use the recipe's number of CPU threads, where it says one."""
    if run.threads is not None:
        torch.set_num_threads(run.threads)
