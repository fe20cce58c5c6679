"""The result of a run: a folder with weights and the recipe that made them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from tubelet.disk.lock import new_folder
from tubelet.recipe import SingleRun, write_recipe
from tubelet.train.checkpoint.folder import MODEL, plain_disk_errors, write_tensors
from tubelet.train.checkpoint.resume import MODEL_FOLDER, RECIPE
from tubelet.train.distributed.process_group import on_main
from tubelet.train.distributed.shard import on_first_host


def write_model(out: Path, recipe: SingleRun, tensors: Mapping[str, Tensor]) -> Path:
    """Write `model/` of the run folder `out`, whole or not at all; returns it. ValueError where the disk is full.

    All ranks call this. Tensors that they share are put together on the host of rank 0, which writes.
    """
    whole = on_first_host(tensors)
    on_main(lambda: _write_model(out, recipe, whole))
    return out / MODEL_FOLDER


def _write_model(out: Path, recipe: SingleRun, tensors: Mapping[str, Tensor]) -> None:
    folder = out / MODEL_FOLDER
    with plain_disk_errors(out), new_folder(folder) as temporary:
        write_tensors(tensors, temporary / MODEL)
        write_recipe(recipe, temporary / RECIPE)
