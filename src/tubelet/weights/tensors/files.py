"""Tensors from a file. Nothing in the file is executed."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tubelet.disk.layout import weights_file
from tubelet.disk.tensors import State
from tubelet.weights.tensors.pickles import PICKLE_STARTS, load_pickle, refuse_what_is_no_pickle

SAFETENSORS: Final = ".safetensors"
CONTAINERS: Final = ("model", "module", "state_dict", "model_state_dict", "model_state")
"""Where training scripts keep the weights in a pickle, the first that is there: "model" and "module" (through
DeepSpeed) are VideoMAE's; one may lie within another."""
OPTIONS: Final = "args"
CONFIG: Final = "cfg"
_DEPTH: Final = 4
WEIGHTS: Final = ("model.safetensors", "pytorch_model.bin")
"""Names of the file of weights in a folder of Hugging Face."""


@dataclass(frozen=True)
class Content:
    """What a file holds: tensors by their names there, and the training script's options where it saved them."""

    state: State
    options: Mapping[str, Any] = field(default_factory=dict)


class OpenedWeights:
    """A path that somebody gave as a model, for formats to look at: nothing is read twice, or before it is asked for.

    `file` is the one with weights; ValueError where there is none. `content` is what it holds, and ValueError where
    that are no tensors; `tensors` are empty then, so that a format may look whether they are its own.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def folder(self) -> Path:
        """The path, or the folder that a file of Hugging Face's usual names lies in."""
        return self.path.parent if self.path.is_file() and self.path.name in WEIGHTS else self.path

    @cached_property
    def file(self) -> Path:
        return weights_file(self.path)

    @cached_property
    def content(self) -> Content:
        return read_content(self.file)

    @cached_property
    def tensors(self) -> State:
        try:
            return self.content.state
        except ValueError:
            return {}


def read_tensors(path: Path, *, modules: Sequence[str] = ()) -> State:
    """All tensors of a `.safetensors` file, or of a PyTorch pickle read with `weights_only`.

    A pickle may be a module put together from the classes `modules`, which are not imported.
    ValueError in one line where there is no such file, it is cut short, it is no checkpoint, or it wants to run code.
    """
    return read_content(path, modules=modules).state


def read_content(path: Path, *, modules: Sequence[str] = ()) -> Content:
    """The tensors and what is beside them; errors as in `read_tensors`."""
    if path.is_dir():
        raise ValueError(f"{path}: a folder, not a file of weights; give the file in it")
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    with path.open("rb") as file:
        start = file.read(16)
    if not start:
        raise ValueError(f"{path}: empty (0 bytes); copy it again")
    if path.suffix == SAFETENSORS or (start[8:9] == b"{" and not start.startswith(PICKLE_STARTS)):
        return Content(_from_safetensors(path))
    refuse_what_is_no_pickle(path)
    return _tensors_in(load_pickle(path, modules=modules), path)


def _from_safetensors(path: Path) -> State:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"{path}: truncated, or not a safetensors checkpoint ({reason}); copy it again") from error


def _tensors_in(top: Any, path: Path) -> Content:
    """Follow `CONTAINERS` down to a mapping of names to tensors."""
    content = top
    found: list[str] = []
    for _ in range(_DEPTH):
        if _is_state(content):
            state = {name: tensor.detach() for name, tensor in content.items()}
            return Content(state, _options(top))
        inner = [name for name in CONTAINERS if isinstance(content, dict) and isinstance(content.get(name), dict)]
        if not inner:
            break
        content = content[inner[0]]
        found.append(inner[0])
    where = ".".join(found) or "the top"
    places = ", ".join(map(repr, CONTAINERS))
    raise ValueError(f"{path}: no tensors at the top or under {places}; at {where} it has {_seen(content)}")


def _is_state(content: Any) -> bool:
    if not isinstance(content, dict) or not content:
        return False
    return all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items())


def _options(top: Any) -> Mapping[str, Any]:
    """`args` of the script, a Namespace or a mapping; or SlowFast's text under `cfg`; nothing where there are none."""
    if isinstance(top, dict) and isinstance(top.get(CONFIG), str):
        return {CONFIG: top[CONFIG]}
    given = top.get(OPTIONS) if isinstance(top, dict) else None
    if isinstance(given, dict):
        return {str(name): value for name, value in given.items()}
    return dict(vars(given)) if isinstance(given, argparse.Namespace) else {}


def _seen(content: Any) -> str:
    if not isinstance(content, dict):
        return f"a {type(content).__name__}"
    odd = [f"{name!r} ({type(value).__name__})" for name, value in content.items() if not isinstance(value, Tensor)]
    return ", ".join(odd[:4]) + (" and more" if len(odd) > 4 else "") if odd else "nothing"
