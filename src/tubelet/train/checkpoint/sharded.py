"""Weights and optimiser spread over ranks, written and read by torch's distributed checkpointing as safetensors.

Its own format has an index that could execute code when it is read; the safetensors back-end keeps offsets as JSON in
each file instead. Any number of processes reads what another number wrote.
"""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from torch import Tensor

from tubelet.disk.integrity import Sums, sums_of
from tubelet.train.distributed.process_group import gather_texts, hosts, place

SHARDED: Final = "sharded"


def write(tensors: Mapping[str, Tensor], folder: Path) -> Sums:
    """Write tensors, spread ones each rank its own rows, into the subfolder `sharded`; all ranks call this.

    Returns checksums of all files, by their names in `folder`; OSError where a disk fails.
    """
    dcp, target = _checkpointing(), folder / SHARDED
    try:
        dcp.save(
            dict(tensors),
            storage_writer=dcp.HuggingFaceStorageWriter(str(target), save_distributed=True),
            process_group=hosts(),
        )
    except dcp.CheckpointException as failed:  # holds the errors of all ranks; not an Exception itself
        raise _first(failed) from failed
    here = place()
    mine = sorted(target.iterdir())[here.rank :: here.world]  # the sums are shared out: reading takes longest
    parts = gather_texts(json.dumps(sums_of(mine, folder=folder)))
    return {name: facts for part in parts for name, facts in json.loads(part).items()}


def sizes(folder: Path) -> dict[str, torch.Size]:
    """Names and whole shapes of the tensors in a checkpoint folder; ValueError where a file is damaged."""
    return {name: facts.size for name, facts in _facts(folder).items()}


def read_whole(folder: Path, prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with `prefix`, without it, put together on the CPU; one process reads alone."""
    facts = _facts(folder)
    chosen = {name: one for name, one in facts.items() if name.startswith(prefix)}
    wanted = {name: torch.empty(one.size, dtype=one.properties.dtype) for name, one in chosen.items()}
    _read(wanted, folder, alone=True)
    return {name.removeprefix(prefix): value for name, value in wanted.items()}


def read_into(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Fill these tensors, spread ones each rank its own rows; all ranks call this."""
    _read(dict(tensors), folder, alone=False)


def _read(tensors: dict[str, Tensor], folder: Path, *, alone: bool) -> None:
    dcp = _checkpointing()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # it is meant to be
        try:
            dcp.load(
                tensors,
                storage_reader=dcp.HuggingFaceStorageReader(str(folder / SHARDED)),
                process_group=None if alone else hosts(),
                no_dist=alone,
            )
        except dcp.CheckpointException as failed:
            raise _first(failed) from failed


def _checkpointing() -> Any:
    """Torch's distributed checkpointing: it takes a while to import, and few runs need it."""
    return importlib.import_module("torch.distributed.checkpoint")


def _facts(folder: Path) -> dict[str, Any]:
    try:
        metadata = _checkpointing().HuggingFaceStorageReader(str(folder / SHARDED)).read_metadata()
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{folder / SHARDED}: missing or damaged ({' '.join(str(error).split())[:200]})") from error
    return dict(metadata.state_dict_metadata)


def _first(failed: Any) -> Exception:
    """The error of the first rank that failed, those of the disk as OSError."""
    rank, (error, _) = next(iter(sorted(failed.failures.items())))
    if isinstance(error, OSError):
        return error
    return ValueError(f"the sharded checkpoint failed in rank {rank}: {' '.join(str(error).split())[:300]}")
