"""Rows of the tensors that one process wrote whole: each rank reads those that it holds, and no more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tubelet.train.distributed.shard import is_sharded, local_rows, local_slice


def sizes(files: Mapping[str, Path]) -> dict[str, torch.Size]:
    """Names and whole shapes of the tensors in safetensors files, each file's key in front; ValueError where damaged.

    A file that is not there has none.
    """
    found: dict[str, torch.Size] = {}
    for prefix, path in files.items():
        if path.exists():
            with _opened(path) as file:
                found |= {f"{prefix}{name}": torch.Size(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  no dict
    return found


def read_into(tensors: Mapping[str, Tensor], files: Mapping[str, Path]) -> None:
    """Fill these tensors, named as by `sizes`, spread ones each rank its own rows."""
    for prefix, path in files.items():
        wanted = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        if wanted:
            with _opened(path) as file:
                for name, value in wanted.items():
                    _fill(value, name, file)


def _fill(value: Tensor, name: str, file: Any) -> None:
    if is_sharded(value):
        local_rows(value).copy_(file.get_slice(name)[local_slice(value)])
    else:
        value.copy_(file.get_tensor(name))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: missing, damaged or cut short ({' '.join(str(error).split())[:200]})") from error
