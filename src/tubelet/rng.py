"""Randomness as an argument: every draw follows from the numbers that name it.

A sample's draw is named by (seed, epoch, index, view), so workers, resume and world size never change it.
A step's draw is named by (seed, step, rank).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

_whole: tuple[Tensor, int] | None = None  # no context variable: autograd's threads must see it when they recompute


def generator(*names: int) -> np.random.Generator:
    """A NumPy generator for the draw with these names (non-negative integers)."""
    return np.random.default_rng(np.random.SeedSequence(names))


@contextmanager
def step_rng(seed: int, step: int, rank: int = 0) -> Iterator[None]:
    """Inside, torch's default generators (drop path, dropout, mixing, initial weights) follow from seed, step and rank.

    The state from before is put back on leaving, so nothing outside depends on how often this was entered.
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(int(generator(seed, step, rank).integers(2**62)))
        yield


@contextmanager
def rows_of(rows: Int[Tensor, " B"], total: int) -> Iterator[None]:
    """Inside, the clips at hand are `rows` of a batch of `total` clips: `draw_rows` draws for all of them.

    So several processes draw for each clip what one process draws that has the whole batch.
    """
    global _whole
    before, _whole = _whole, (rows, total)
    try:
        yield
    finally:
        _whole = before


def draw_rows(count: int, draw: Callable[[int], Tensor]) -> Tensor:
    """What `draw(rows)` gives for the `count` clips at hand, one row each."""
    if _whole is None:
        return draw(count)
    rows, total = _whole
    assert len(rows) == count, f"draws are per clip: {count} rows for {len(rows)} clips"
    return draw(total)[rows]
