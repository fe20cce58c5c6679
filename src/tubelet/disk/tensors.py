"""Tensors to a file, and in one kind of number."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor


def write_tensors(tensors: Mapping[str, Tensor], path: Path, *, metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file that others may read as they may what else is written there.

    Its errors of the disk come as OSError.
    """
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    path.touch()
    mode = path.stat().st_mode  # as the umask has it; the library leaves a file that only its owner reads
    try:
        safetensors.torch.save_file(plain, path, None if metadata is None else dict(metadata))
    except SafetensorError as error:
        full = "os error 28" in str(error) or "os error 122" in str(error)
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error), str(path)) from error
    path.chmod(mode)


def in_float32(state: State) -> tuple[State, tuple[str, ...]]:
    """Half precision, in which DeepSpeed saves, as float32; and a note where there was any."""
    halves = {str(t.dtype).removeprefix("torch.") for t in state.values() if t.dtype != torch.float32}
    if not halves:
        return state, ()
    full = {name: tensor.to(torch.float32) for name, tensor in state.items()}
    return full, (f"its numbers are {' and '.join(sorted(halves))}; taken as float32",)


State = dict[str, Tensor]
