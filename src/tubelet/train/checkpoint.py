"""Checkpoints: one folder per step with safetensors and JSON. Reading one never executes code.

checkpoints/step-00000120/  model.safetensors  optimizer.safetensors  [average.safetensors]  state.json
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from tubelet.train.files import is_disk_full, new_folder, remove_leftovers
from tubelet.weights.tensors import write_tensors as write_tensors

CHECKPOINTS: Final = "checkpoints"
MODEL: Final = "model.safetensors"
OPTIMIZER: Final = "optimizer.safetensors"
AVERAGE: Final = "average.safetensors"
STATE: Final = "state.json"
_FORMAT: Final = 1


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to go on after `step`. `average` are the EMA weights; `facts` is plain JSON."""

    step: int
    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    average: Mapping[str, Tensor] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def save(checkpoint: Checkpoint, out: Path, *, keep: int) -> Path:
    """Write a checkpoint of the run `out`, whole or not at all, then remove all but the newest `keep`.

    OSError where the disk is full or fails: the checkpoints from before are then as they were.
    """
    folder = folder_of(out, checkpoint.step)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(folder) as temporary:
        write_tensors(checkpoint.model, temporary / MODEL)
        write_tensors(checkpoint.optimizer, temporary / OPTIMIZER)
        if checkpoint.average is not None:
            write_tensors(checkpoint.average, temporary / AVERAGE)
        state = {"format": _FORMAT, "step": checkpoint.step, **checkpoint.facts}
        (temporary / STATE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
    for old in saved(out)[:-keep]:
        shutil.rmtree(old)
    return folder


def folder_of(out: Path, step: int) -> Path:
    """Where the checkpoint after `step` is kept."""
    return out / CHECKPOINTS / f"step-{step:08d}"


def saved(out: Path) -> list[Path]:
    """Folders of the checkpoints of a run, oldest first."""
    return sorted(path for path in (out / CHECKPOINTS).glob("step-*") if path.is_dir())


def latest(out: Path) -> Path | None:
    """Folder of the newest checkpoint of a run, None where there is none yet."""
    return saved(out)[-1] if saved(out) else None


def clean(out: Path) -> None:
    """Remove what a killed process left half written."""
    remove_leftovers(out)
    if (out / CHECKPOINTS).exists():
        remove_leftovers(out / CHECKPOINTS)


def load(folder: Path) -> Checkpoint:
    """Read a checkpoint folder; ValueError names the damaged file and the checkpoint to go back to."""
    try:
        state = read_state(folder)
        average = folder / AVERAGE
        return Checkpoint(
            step=int(state["step"]),
            model=read_tensors(folder / MODEL),
            optimizer=read_tensors(folder / OPTIMIZER),
            average=read_tensors(average) if average.exists() else None,
            facts=state,
        )
    except ValueError as error:
        raise ValueError(f"{error}; {_way_back(folder)}") from error


def read_state(folder: Path) -> dict[str, Any]:
    """The JSON part of a checkpoint; ValueError where it is damaged or of another format."""
    path = folder / STATE
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: missing or damaged ({_short(error)})") from error
    if not isinstance(state, dict) or state.get("format") != _FORMAT or not isinstance(state.get("step"), int):
        raise ValueError(f"{path}: not the state of a checkpoint of format {_FORMAT}")
    return state


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file; ValueError where it is missing, damaged or cut short."""
    try:
        return safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: missing, damaged or cut short ({_short(error)})") from error


def weights(folder: Path) -> dict[str, Tensor]:
    """Weights to use of a checkpoint: the average where there is one, else those of the model."""
    average = folder / AVERAGE
    return read_tensors(average if average.exists() else folder / MODEL)


def fill(module: nn.Module, tensors: Mapping[str, Tensor], *, where: Path) -> None:
    """Load weights into a module, all of them and no others; ValueError names the first that does not fit."""
    wanted = module.state_dict()
    for name, value in wanted.items():
        if name not in tensors:
            raise ValueError(f"{where}: has no tensor {name!r}, which the model of the recipe needs")
        if tensors[name].shape != value.shape:
            raise ValueError(
                f"{where}: {name!r} has shape {list(tensors[name].shape)}, the model of the recipe needs "
                f"{list(value.shape)}; was it made with another recipe?"
            )
    surplus = sorted(tensors.keys() - wanted.keys())
    if surplus:
        raise ValueError(f"{where}: has {surplus[0]!r} ({len(surplus)} such), which the model of the recipe lacks")
    module.load_state_dict(dict(tensors))


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


def _way_back(folder: Path) -> str:
    """What to do about a damaged checkpoint: the newest older one whose files are whole."""
    older = [path for path in saved(folder.parent.parent) if path.name < folder.name and _is_whole(path)]
    if older:
        return f"{older[-1].name} is whole: remove {folder} and run again to go on from there"
    return f"no older checkpoint is whole: start again with --fresh, or restore {folder}"


def _is_whole(folder: Path) -> bool:
    """Whether the files of a checkpoint open; the header of safetensors gives away a file that was cut short."""
    try:
        read_state(folder)
        for path in folder.glob("*.safetensors"):
            with safe_open(path, framework="pt"):
                pass
    except (OSError, ValueError, SafetensorError):
        return False
    return (folder / MODEL).exists() and (folder / OPTIMIZER).exists()


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
