"""Tables of learnt positions for another grid: of multiscale transformers, whose tables lie in many blocks."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

from torch import Tensor

from tubelet.disk.tensors import State
from tubelet.nn.multiscale.relative import stretch_rows
from tubelet.nn.position import stretch
from tubelet.types import Grid

_LINEAR: Final = re.compile(r"(.*\.)?(rel_pos_[thw]|pos_embed_time)")
_SQUARE: Final = re.compile(r"(.*\.)?pos_embed_space")


def with_stretched_tables(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[State, tuple[str, ...]]:
    """The state with its position tables as long as those of `wanted` with the same names; a note where one was not.

    Relative tables and that of time linearly, that of space bicubically (SlowFast `checkpoint.py`). What differs in
    another way than in length is left to the strict check.
    """
    changed: State = {}
    for name, table in state.items():
        new = wanted.get(name)
        if new is None or table.shape == new.shape or table.shape[-1] != new.shape[-1] or table.ndim != new.ndim:
            continue
        if _LINEAR.fullmatch(name):
            rows = stretch_rows(table.flatten(0, -2).float(), new.shape[-2])
            changed[name] = rows.to(table.dtype).reshape(new.shape)
        elif _SQUARE.fullmatch(name):
            old_side, side = math.isqrt(table.shape[-2]), math.isqrt(new.shape[-2])
            changed[name] = stretch(table, Grid(1, old_side, old_side), Grid(1, side, side))
    if not changed:
        return dict(state), ()
    first = next(iter(changed))
    note = (
        f"{len(changed)} position tables are interpolated to the model's grid, such as {first}: "
        f"{state[first].shape[-2]} to {changed[first].shape[-2]} rows"
    )
    return {**state, **changed}, (note,)
