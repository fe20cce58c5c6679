"""Randomness as an argument: every draw follows from the numbers that name it.

A sample's draw is named by (seed, epoch, index, view), so workers, resume and world size never change it.
A step's draw is named by (seed, step, rank).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


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
