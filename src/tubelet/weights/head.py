"""The head of a classifier from the rows of another one's, by the names of the classes (VideoMAE V2's label maps)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor, nn

from tubelet.data.class_names import Names
from tubelet.data.label_space import LabelSpace, read_label_space, read_renames, rows
from tubelet.disk.tensors import State
from tubelet.methods.classifier import Classifier
from tubelet.recipe import SameClasses
from tubelet.weights.checkpoint import Weights

WEIGHT: Final = "head.weight"
BIAS: Final = "head.bias"
NORM: Final = "fc_norm."
_SHOWN: Final = 5


def class_rows(start: SameClasses, names: Names, theirs: Names | None, where: str) -> Int64[np.ndarray, " n"]:
    """For each of our class `names` the row of the class of the same name among `theirs`, -1 where there is none.

    `theirs` are the names in the start, unless `start.class_names` is a file of them; `where` names it in errors.
    ValueError where one side has numbers for names, a file is wrong, or no class at all is found.
    """
    space = None if theirs is None else LabelSpace(theirs)
    if start.class_names is not None:
        space = read_label_space(Path(start.class_names))
    if space is None or _are_numbers(space.names):
        raise ValueError(f"{where}: its classes have no names; give a file of them (start_head.class_names=FILE)")
    if _are_numbers(names):
        raise ValueError("start_head=same_classes needs names of the classes to learn; give a file (data.class_names)")
    renames = {} if start.renames is None else read_renames(Path(start.renames))
    try:
        found = rows(LabelSpace(names), space, renames)
    except ValueError as error:
        raise ValueError(f"{start.renames}: {error}") from error
    if (found < 0).all():
        raise ValueError(
            f"{where}: none of the {len(names)} classes ({names[0]}, ...) is among its {len(space)} "
            f"({space.names[0]}, ...); names that differ go into start_head.renames, or leave the head fresh"
        )
    return found


def mapped_head(
    start: SameClasses, names: Names, source: Weights, classifier: Classifier
) -> tuple[State, tuple[str, ...]]:
    """Tensors of norm and head for `classifier`, whose classes are `names`, and a line for the user.

    ValueError as for `class_rows`, and where the start has no head, or one that reads other features.
    """
    weight, bias = source.state.get(WEIGHT), source.state.get(BIAS)
    if weight is None or bias is None:
        raise ValueError(f"{source.file}: has no head to start from ({source.format}); start_head=fresh does without")
    found = class_rows(start, names, source.names, str(source.file))
    theirs = source.names if start.class_names is None else read_label_space(Path(start.class_names)).names
    if theirs is None or len(theirs) != len(bias):
        given = start.class_names or "its names"
        raise ValueError(f"{source.file}: its head has {len(bias)} classes, but {given} has {len(theirs or ())}")
    _check_features(source, classifier)
    norm = {name: tensor for name, tensor in source.state.items() if name.startswith(NORM)}
    own = classifier.state_dict()
    head = {WEIGHT: _taken(own[WEIGHT], weight, found), BIAS: _taken(own[BIAS], bias, found)}
    fresh = [name for name, row in zip(names, found, strict=True) if row < 0]
    more = ", ..." if len(fresh) > _SHOWN else ""
    rest = f"; {len(fresh)} start fresh: {', '.join(fresh[:_SHOWN])}{more}" if fresh else ""
    return {**norm, **head}, (f"head: {len(names) - len(fresh)} of {len(names)} classes by their names{rest}",)


def _taken(own: Tensor, theirs: Tensor, found: Int64[np.ndarray, " n"]) -> Tensor:
    """Rows of theirs where there is one, else our own."""
    if own.shape[1:] != theirs.shape[1:]:
        return theirs  # the strict check names both shapes
    if own.is_meta:
        return own
    index = torch.from_numpy(found)
    has_row = (index >= 0).reshape(-1, *[1] * (own.ndim - 1))
    return torch.where(has_row, theirs[index.clamp(min=0)].to(own.dtype), own)


def _check_features(source: Weights, classifier: Classifier) -> None:
    mean = isinstance(classifier.fc_norm, nn.LayerNorm)
    if mean != any(name.startswith(NORM) for name in source.state):
        here, there = ("mean", "first") if mean else ("first", "mean")
        raise ValueError(
            f"{source.file}: its head reads tokens in another way (pooling {there!r}, here {here!r}): "
            f"set model.pooling={there}, or leave the head fresh"
        )


def _are_numbers(names: Names) -> bool:
    return names == tuple(str(label) for label in range(len(names)))
