"""Which videos a step takes: fixed by (seed, epoch), so a run can start in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from jaxtyping import Int64

from tubelet.data.mixture import Mixture
from tubelet.rng import generator

BATCH_SIZE: Final = "run.batch_size"
_ORDER: Final = 1  # fifth name of the draw: samples are named by four, steps by three


def order(count: int, *, seed: int, epoch: int) -> Int64[np.ndarray, " count"]:
    """The permutation of `count` videos for an epoch."""
    return generator(seed, epoch, 0, 0, _ORDER).permutation(count)


def steps_per_epoch(count: int, batch_size: int, *, field: str = BATCH_SIZE) -> int:
    """Whole batches in an epoch; the rest is left out, a different rest each epoch.

    ValueError where there is none; it names the `field` of the recipe that says `batch_size`.
    """
    if count < batch_size:
        raise ValueError(f"{field} {batch_size} is larger than the {count} videos; set {field}={count} or less")
    return count // batch_size


def rank_rows(batch_size: int, *, rank: int, world: int, field: str = BATCH_SIZE) -> Int64[np.ndarray, " share"]:
    """Places of a batch that a rank takes, ascending: some from the front, and their mirror images from the back.

    Clips are mixed with their mirror image in the batch (`tubelet.nn.mixing`), so a rank with an even number of videos
    holds both. All places for one rank. ValueError where the ranks cannot have equally many.
    """
    if batch_size % world:
        raise ValueError(f"{field} {batch_size} is not a multiple of the {world} processes")
    pairs, odd = divmod(batch_size // world, 2)
    front = np.arange(rank * pairs, (rank + 1) * pairs)
    middle = np.arange(odd) + world * pairs + rank
    return np.concatenate([front, middle, batch_size - 1 - front[::-1]])


class StepSampler:
    """Keys (epoch, index) of one step after the other, across epochs, from step `start` + 1 to `stop`.

    An epoch takes all of so many `videos`, or those that a mixture of several sources chooses for it. `batch_size`
    counts the videos of a step over all ranks; each rank gets its own `rows` of every batch.
    """

    def __init__(
        self, videos: int | Mixture, *, batch_size: int, seed: int, start: int, stop: int, rank: int = 0, world: int = 1
    ) -> None:
        self.rows = rank_rows(batch_size, rank=rank, world=world)
        self.videos, self.batch_size, self.seed = videos, batch_size, seed
        self.start, self.stop = start, stop
        self.count = len(videos) if isinstance(videos, Mixture) else videos
        self.steps_per_epoch = steps_per_epoch(self.count, batch_size)
        self._permutation, self._known = np.empty(0, dtype=np.int64), -1

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return (self.keys(step) for step in range(self.start, self.stop))

    def keys(self, step: int) -> list[tuple[int, int]]:
        """Those of this rank after `step` steps."""
        epoch = step // self.steps_per_epoch
        return [(epoch, int(index)) for index in self.batch(step)[self.rows]]

    def batch(self, step: int) -> Int64[np.ndarray, " batch_size"]:
        """Indices of the whole batch, of all ranks, after `step` steps."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._known:
            self._permutation, self._known = self._of_epoch(epoch), epoch
        return self._permutation[place * self.batch_size : (place + 1) * self.batch_size]

    def _of_epoch(self, epoch: int) -> Int64[np.ndarray, " count"]:
        shuffled = order(self.count, seed=self.seed, epoch=epoch)
        return self.videos.places(epoch)[shuffled] if isinstance(self.videos, Mixture) else shuffled
