"""Where a run computes, and in which numbers."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import nn

from tubelet.models.encoders import blocks_of
from tubelet.nn.drop_path import DropPath
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


def compiles(run: Run, device: torch.device) -> bool:
    """Whether this run compiles; "auto" does on a GPU, where Triton is there. On CPUs it was slower (docs/log.md)."""
    if run.compile == "auto":
        return device.type == "cuda" and importlib.util.find_spec("triton") is not None
    return run.compile == "blocks"


def compile_blocks(module: nn.Module, run: Run, device: torch.device) -> None:
    """Have the blocks compiled when they are first called, where the run says so; in place."""
    if not compiles(run, device):
        return
    for block in blocks_of(module):
        for part in block.modules():
            if isinstance(part, DropPath):
                part.draw = torch.compiler.disable(part.draw)  # type: ignore[method-assign]
        block.compile()


@contextmanager
def plain_compile_errors(run: Run, device: torch.device) -> Iterator[None]:
    """Inside, a compiler that is missing or fails gives a ValueError that says what to do."""
    if not compiles(run, device):
        yield
        return
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import InductorError

    try:
        yield
    except (TorchDynamoException, InductorError) as error:
        why = " ".join(str(error).split())[:200]
        raise ValueError(
            f"torch.compile failed on {device} ({why}); set run.compile=never, or mend the compiler"
        ) from error
