"""Strict loading: every tensor has its place, every place its tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def filled(module: ModuleT, state: Mapping[str, Tensor], file: Path) -> ModuleT:
    """The module in eval mode with these weights, all of them and no others. ValueError as in `check_fit`."""
    check_fit(state, module.state_dict(), file)
    module.load_state_dict(dict(state), strict=True)
    return module.eval()


def check_fit(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], file: Path) -> None:
    """ValueError that names a tensor and both shapes, or the first name that one side lacks."""
    for name, ours in wanted.items():
        if name in state and state[name].shape != ours.shape:
            both = f"{tuple(state[name].shape)} there and {tuple(ours.shape)} in this recipe's model"
            raise ValueError(f"{file}: shapes do not fit: {name} is {both}")
    missing = [name for name in wanted if name not in state]
    if missing:
        raise ValueError(f"{file}: lacks {_some(missing)} of this recipe's model: is it of another depth or kind?")
    extra = [name for name in state if name not in wanted]
    if extra:
        raise ValueError(
            f"{file}: has {_some(extra)} for which this recipe's model has no place: another depth or kind?"
        )


def _some(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more tensors"
