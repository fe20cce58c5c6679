"""Checksums: of a checkpoint's files, so that a flipped bit is found before it trains on; of tensors in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

FILES: Final = "files"
_OWN: Final = "sha256"

Sums = dict[str, dict[str, Any]]
"""By the name of a file within its folder: its `bytes` and its `sha256`."""


def sums_of(files: Iterable[Path], *, folder: Path) -> Sums:
    """Sizes and checksums of files in `folder`."""
    return {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, _OWN: _digest(path)} for path in sorted(files)
    }


def sealed(state: Mapping[str, Any], sums: Sums) -> dict[str, Any]:
    """The state with the sums of the other files, and its own."""
    whole = {**state, FILES: sums}
    return {**whole, _OWN: _digest_of(whole)}


def check_seal(state: Mapping[str, Any], path: Path) -> None:
    """ValueError where the state, read from `path`, is not what was sealed. States from before had no seal."""
    if _OWN not in state and FILES not in state:
        return
    if state.get(_OWN) != _digest_of({name: value for name, value in state.items() if name != _OWN}):
        raise ValueError(f"{path}: damaged (its checksum does not agree)")


def check_files(state: Mapping[str, Any], folder: Path) -> None:
    """ValueError names the first file that is missing, cut short or changed."""
    for name, facts in state.get(FILES, {}).items():
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{path}: missing")
        size = path.stat().st_size
        if size != facts["bytes"]:
            raise ValueError(f"{path}: cut short or damaged ({size:,} bytes, {facts['bytes']:,} were written)")
        if _digest(path) != facts[_OWN]:
            raise ValueError(f"{path}: damaged (its checksum does not agree)")


def tensor_bytes(tensors: Mapping[str, Tensor], *, end: str = "") -> Iterator[bytes | memoryview]:
    """What a checksum of tensors is taken of: name, kind and shape and then bytes of each, in the order of their names.

    `end` follows the name, kind and shape of each. What was written down with one value holds for that value alone.
    """
    for name, value in sorted(tensors.items()):
        yield f"{name} {value.dtype} {tuple(value.shape)}{end}".encode()
        yield value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error


def _digest_of(state: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
