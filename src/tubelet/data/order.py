"""Which videos a step takes: fixed by (seed, epoch), so a run can start in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from jaxtyping import Int64

from tubelet.rng import generator

_ORDER: Final = 1  # fifth name of the draw: samples are named by four, steps by three


def order(count: int, *, seed: int, epoch: int) -> Int64[np.ndarray, " count"]:
    """The permutation of `count` videos for an epoch."""
    return generator(seed, epoch, 0, 0, _ORDER).permutation(count)


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Whole batches in an epoch; the rest is left out, another rest each epoch. ValueError where there is none."""
    if count < batch_size:
        raise ValueError(
            f"run.batch_size {batch_size} is larger than the {count} videos; set run.batch_size={count} or less"
        )
    return count // batch_size


class StepSampler:
    """Keys (epoch, index) of one step after the other, across epochs, from step `start` + 1 to `stop`.

    `batch_size` counts the videos of a step over all ranks; each rank gets its own equal slice of every batch.
    """

    def __init__(
        self, count: int, *, batch_size: int, seed: int, start: int, stop: int, rank: int = 0, world: int = 1
    ) -> None:
        if batch_size % world:
            raise ValueError(f"run.batch_size {batch_size} is not a multiple of the {world} processes")
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.start, self.stop = start, stop
        self.rank, self.world = rank, world
        self.steps_per_epoch = steps_per_epoch(count, batch_size)

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        share = self.batch_size // self.world
        permutation, known = np.empty(0, dtype=np.int64), -1
        for step in range(self.start, self.stop):
            epoch, place = divmod(step, self.steps_per_epoch)
            if epoch != known:
                permutation, known = order(self.count, seed=self.seed, epoch=epoch), epoch
            first = place * self.batch_size + self.rank * share
            yield [(epoch, int(index)) for index in permutation[first : first + share]]
