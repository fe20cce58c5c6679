"""Tensors from a file. Nothing in the file is executed."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tubelet.weights.rename import State

PICKLES: Final = (".pth", ".pt", ".bin")
CONTAINERS: Final = ("model", "module")  # where VideoMAE's scripts, plain and through DeepSpeed, keep the weights


def read_tensors(path: Path) -> State:
    """All tensors of a `.safetensors` file, or of a PyTorch pickle read with `weights_only`.

    ValueError in one line where there is no such file, it is cut short, or it is no checkpoint.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    if path.suffix in PICKLES:
        return _from_pickle(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        reason = _one_line(error)
        raise ValueError(f"{path}: truncated, or not a safetensors checkpoint ({reason}); copy it again") from error


def _from_pickle(path: Path) -> State:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # the scripts save their options beside
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        reason = _one_line(error)
        raise ValueError(f"{path}: truncated, or not a checkpoint that holds tensors only ({reason})") from error
    for name in CONTAINERS:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
            break
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path}: no tensors at the top or under {' or '.join(map(repr, CONTAINERS))}")
    return content


def _one_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:120]
