"""Checkpoints: one folder per step with safetensors and JSON; and the finished `model/`. Reading never executes code.

checkpoints/step-00000120/  model.safetensors  optimizer.safetensors  [average.safetensors]  state.json
or, where weights are spread over processes:  sharded/*.safetensors  state.json
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from tubelet.disk.integrity import FILES, Sums, check_files, check_seal, sealed, sums_of
from tubelet.disk.layout import (
    AVERAGE_FILE,
    CHECKPOINTS,
    MODEL_FILE,
    MODEL_FOLDER,
    OPTIMIZER_FILE,
    RECIPE_FILE,
    STATE_FILE,
)
from tubelet.disk.tensors import write_tensors as write_tensors
from tubelet.disk.write import is_disk_full, move, new_folder, remove_leftovers, temporary_of
from tubelet.recipe import SingleRun, write_recipe
from tubelet.train.checkpoint import rows, sharded
from tubelet.train.distributed.process_group import barrier, is_main, on_main
from tubelet.train.distributed.shard import on_first_host
from tubelet.weights.tensors.rename import name_now

FoundT = TypeVar("FoundT")
DAMAGED: Final = ".damaged"
_FORMAT: Final = 1
_FOLDER: Final = re.compile(r"step-\d{8,}")
PARTS: Final = ("model/", "optimizer/", "average/")
"""What the names of tensors in a sharded checkpoint begin with."""


@dataclass(frozen=True)
class RunState:
    """All that a run needs to go on after `step`. `average` are the EMA weights; `facts` is plain JSON."""

    step: int
    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    average: Mapping[str, Tensor] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def save(checkpoint: RunState, out: Path, *, keep: int) -> Path:
    """Write a checkpoint of the run `out`, whole or not at all, then remove all but the newest `keep`.

    OSError where the disk is full or fails: the checkpoints from before are then as they were.
    """
    folder = folder_of(out, checkpoint.step)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(folder) as temporary:
        write_tensors(checkpoint.model, temporary / MODEL_FILE)
        write_tensors(checkpoint.optimizer, temporary / OPTIMIZER_FILE)
        if checkpoint.average is not None:
            write_tensors(checkpoint.average, temporary / AVERAGE_FILE)
        sums = sums_of(temporary.iterdir(), folder=temporary)
        _write_state(temporary, checkpoint.step, checkpoint.facts, sums)
    _remove_all_but(out, keep)
    return folder


def save_sharded(checkpoint: RunState, out: Path, *, keep: int) -> Path:
    """The same for tensors that are spread over ranks, each of which writes its own rows; all ranks call this."""
    folder = folder_of(out, checkpoint.step)
    parts = (checkpoint.model, checkpoint.optimizer, checkpoint.average or {})
    tensors = {f"{prefix}{n}": value for prefix, part in zip(PARTS, parts, strict=True) for n, value in part.items()}
    with new_folder(folder) if is_main() else nullcontext(temporary_of(folder)) as temporary:
        barrier()  # the folder is there
        sums = sharded.write(tensors, temporary)
        if is_main():
            _write_state(temporary, checkpoint.step, checkpoint.facts, sums)
    if is_main():
        _remove_all_but(out, keep)
    barrier()  # nobody goes on before it has its name
    return folder


def write_model(out: Path, recipe: SingleRun, tensors: Mapping[str, Tensor]) -> Path:
    """Write `model/` of the run folder `out`, whole or not at all; returns it. ValueError where the disk is full.

    All ranks call this. Tensors that they share are put together on the host of rank 0, which writes.
    """
    whole = on_first_host(tensors)
    on_main(lambda: _write_model(out, recipe, whole))
    return out / MODEL_FOLDER


def _write_model(out: Path, recipe: SingleRun, tensors: Mapping[str, Tensor]) -> None:
    with plain_disk_errors(out), new_folder(out / MODEL_FOLDER) as temporary:
        write_tensors(tensors, temporary / MODEL_FILE)
        write_recipe(recipe, temporary / RECIPE_FILE)


def _write_state(folder: Path, step: int, facts: Mapping[str, Any], sums: Sums) -> None:
    state = sealed({"format": _FORMAT, "step": step, **facts}, sums)
    (folder / STATE_FILE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")


def _remove_all_but(out: Path, keep: int) -> None:
    for old in saved(out)[:-keep]:
        shutil.rmtree(old)


def folder_of(out: Path, step: int) -> Path:
    """Where the checkpoint after `step` is kept."""
    return out / CHECKPOINTS / f"step-{step:08d}"


def step_of(folder: Path) -> int:
    """The step after which a checkpoint was made."""
    return int(folder.name.removeprefix("step-"))


def saved(out: Path) -> list[Path]:
    """Folders of the checkpoints of a run, oldest first."""
    return sorted(path for path in (out / CHECKPOINTS).glob("step-*") if _FOLDER.fullmatch(path.name) and path.is_dir())


def latest(out: Path) -> Path | None:
    """Folder of the newest checkpoint of a run, None where there is none yet."""
    return saved(out)[-1] if saved(out) else None


def clean(out: Path) -> None:
    """Remove what a killed process left half written."""
    remove_leftovers(out)
    if (out / CHECKPOINTS).exists():
        remove_leftovers(out / CHECKPOINTS)


def newest_whole(out: Path) -> tuple[Path | None, dict[Path, str]]:
    """The newest checkpoint whose files are all as they were written, and why newer ones, newest first, are not."""
    damaged: dict[Path, str] = {}
    for folder in reversed(saved(out)):
        try:
            check(folder)
        except ValueError as error:
            damaged[folder] = str(error)
        else:
            return folder, damaged
    return None, damaged


def put_aside(folder: Path) -> Path:
    """Rename a damaged checkpoint, so that nobody goes on from it and somebody may look at it; gives the new name."""
    aside = folder.with_name(folder.name + DAMAGED)
    shutil.rmtree(aside, ignore_errors=True)
    move(folder, aside)
    return aside


def check(folder: Path) -> None:
    """ValueError names the first damaged file. Without checksums (old checkpoints) only headers are looked at."""
    state = read_state(folder)
    if FILES in state:
        check_files(state, folder)
        return
    for name in (MODEL_FILE, OPTIMIZER_FILE):
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name}: missing")
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt"):
                pass
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{path}: damaged or cut short ({_short(error)})") from error


def load(folder: Path) -> RunState:
    """Read a checkpoint folder of either form into whole tensors; ValueError names a damaged file."""
    state = read_state(folder)
    if is_sharded(folder):
        model, optimizer, average = (_names_now(sharded.read_whole(folder, part)) for part in PARTS)
        return RunState(int(state["step"]), model, optimizer, average or None, state)
    average_file = folder / AVERAGE_FILE
    return RunState(
        step=int(state["step"]),
        model=read_tensors(folder / MODEL_FILE),
        optimizer=read_tensors(folder / OPTIMIZER_FILE),
        average=read_tensors(average_file) if average_file.exists() else None,
        facts=state,
    )


def sizes(folder: Path) -> dict[str, torch.Size]:
    """Names, one of `PARTS` in front, and whole shapes of the tensors of either form; ValueError where damaged."""
    return _names_now(_stored_sizes(folder))


def read_into(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Fill these tensors, named as by `sizes`, spread ones each rank its own rows; all ranks call this."""
    stored = {name_now(name): name for name in _stored_sizes(folder)}
    tensors = {stored.get(name, name): value for name, value in tensors.items()}
    if is_sharded(folder):
        sharded.read_into(tensors, folder)
    else:
        rows.read_into(tensors, _files(folder))


def _stored_sizes(folder: Path) -> dict[str, torch.Size]:
    return sharded.sizes(folder) if is_sharded(folder) else rows.sizes(_files(folder))


def _names_now(found: Mapping[str, FoundT]) -> dict[str, FoundT]:
    """What an earlier version wrote, under the names of today."""
    return {name_now(name): value for name, value in found.items()}


def _files(folder: Path) -> dict[str, Path]:
    return {part: folder / name for part, name in zip(PARTS, (MODEL_FILE, OPTIMIZER_FILE, AVERAGE_FILE), strict=True)}


def is_sharded(folder: Path) -> bool:
    """Whether the tensors of a checkpoint were written by several processes."""
    return (folder / sharded.SHARDED).is_dir()


def read_state(folder: Path) -> dict[str, Any]:
    """The JSON part of a checkpoint; ValueError where it is damaged or of another format."""
    path = folder / STATE_FILE
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: missing or damaged ({_short(error)})") from error
    if not isinstance(state, dict) or state.get("format") != _FORMAT or not isinstance(state.get("step"), int):
        raise ValueError(f"{path}: not the state of a checkpoint of format {_FORMAT}")
    check_seal(state, path)
    return state


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file; ValueError where it is missing, damaged or cut short."""
    try:
        return _names_now(safetensors.torch.load_file(path))
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: missing, damaged or cut short ({_short(error)})") from error


def weights(folder: Path) -> dict[str, Tensor]:
    """Weights to use of a checkpoint: the average where there is one, else those of the model."""
    if is_sharded(folder):
        model, _, average = PARTS
        return _names_now(sharded.read_whole(folder, average) or sharded.read_whole(folder, model))
    average_file = folder / AVERAGE_FILE
    return read_tensors(average_file if average_file.exists() else folder / MODEL_FILE)


def fill(module: nn.Module, tensors: Mapping[str, Tensor], *, where: Path) -> None:
    """Load weights into a module, all of them and no others; ValueError names the first that does not fit."""
    shapes = {name: value.shape for name, value in tensors.items()}
    check_fit(module.state_dict(), shapes, where=where)
    module.load_state_dict(dict(tensors))


def check_fit(wanted: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], *, where: Path) -> None:
    """ValueError where `where` has not exactly the wanted tensors, in their shapes."""
    for name, value in wanted.items():
        if name not in shapes:
            raise ValueError(f"{where}: has no tensor {name!r}, which the model of the recipe needs")
        if shapes[name] != value.shape:
            raise ValueError(
                f"{where}: {name!r} has shape {list(shapes[name])}, the model of the recipe needs "
                f"{list(value.shape)}; was it made with another recipe?"
            )
    surplus = sorted(shapes.keys() - wanted.keys())
    if surplus:
        raise ValueError(f"{where}: has {surplus[0]!r} ({len(surplus)} such), which the model of the recipe lacks")


@contextmanager
def plain_disk_errors(out: Path) -> Iterator[None]:
    """Inside, a full disk is a ValueError of one line that says which checkpoint of the run `out` is good."""
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        last = latest(out)
        good = f"the checkpoint {last.name} is whole" if last else "no checkpoint was saved yet"
        raise ValueError(f"{out}: no space left on the disk; {good}; free some space, then run again") from error


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
