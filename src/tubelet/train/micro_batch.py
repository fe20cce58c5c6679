"""How a step is shared out: what all ranks know of it before they take it, and the pieces that each of them runs.

The loss of a step is the mean over what counts in the whole batch, wherever its clips are: each piece weighs as much as
it counts. Draws are those of one process that has the whole batch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from tubelet.data.dataset import HostBatch, Skipped
from tubelet.data.order import StepSampler
from tubelet.data.workers.loader import DeviceBatch
from tubelet.rng import rows_of, step_rng
from tubelet.train.distributed.process_group import gather, gather_texts, place, share_batch
from tubelet.train.journal import video_index
from tubelet.types import Batch


@dataclass(frozen=True)
class StepAgreement:
    """What all ranks know of the step that will be number `step`.

    `clips` and `count` are sums over the ranks; `skipped` and `index` name the bad and the good videos of all.
    `stop` is the signal to stop after this step. Every rank runs `pieces` pieces; one that has too few adds `dummy`,
    a clip that weighs nothing. `rows` are the places of this rank's clips in the batch, None for one process.
    """

    step: int
    clips: int
    count: float
    pieces: int
    skipped: tuple[Skipped, ...]
    index: Int64[Tensor, " I"]
    stop: int | None
    dummy: Batch | None = None
    rows: Int64[Tensor, " R"] | None = None


@dataclass(frozen=True)
class MicroBatch:
    """A part of the batch on the device. `share` is what its loss weighs; `rows` are its places among all `clips`."""

    batch: Batch
    share: float
    rows: Int64[Tensor, " R"] | None
    clips: int

    @contextmanager
    def draws(self, seed: int, step: int) -> Iterator[None]:
        """Inside, draws are those for these rows of the whole batch; for one process the caller has set them."""
        if self.rows is None:
            yield
            return
        with step_rng(seed, step), rows_of(self.rows, self.clips):
            yield


class StepPlan:
    """Shares out the steps of `sampler`. `count` says how much a batch weighs; each rank cuts its own in `pieces`."""

    def __init__(
        self, sampler: StepSampler, count: Callable[[Batch], float], *, pieces: int, device: torch.device
    ) -> None:
        self._sampler, self._count, self._pieces, self._device = sampler, count, pieces, device

    def agree(self, host: HostBatch, step: int, *, stop: int | None) -> StepAgreement:
        """What all ranks have for the step after `step` steps. `stop` is a signal that this process got."""
        clips = 0 if host.batch is None else host.batch.size
        if place().world == 1:
            index = torch.empty(0, dtype=torch.int64) if host.batch is None else video_index(host)
            return StepAgreement(step + 1, clips, 0.0, min(self._pieces, clips), host.skipped, index, stop)
        count = 0.0 if host.batch is None else self._count(host.batch)
        rows = gather([clips, count, stop or 0, len(host.skipped)])
        by_rank = [int(row[0]) for row in rows]
        skipped = _all_skipped(host.skipped) if any(row[3] for row in rows) else ()
        return StepAgreement(
            step=step + 1,
            clips=sum(by_rank),
            count=sum(row[1] for row in rows),
            pieces=min(self._pieces, max(by_rank)),
            skipped=skipped,
            index=self._index(step, skipped),
            stop=int(max(row[2] for row in rows)) or None,
            dummy=_dummy(host.batch, by_rank),
            rows=self._rows(by_rank, is_full=not skipped),
        )

    def split(self, device_batch: DeviceBatch, agreement: StepAgreement) -> list[MicroBatch]:
        """The pieces of this rank; ValueError where nothing in the whole batch counts."""
        host, bounds = (
            device_batch.host.batch,
            slices(0 if device_batch.batch is None else device_batch.batch.size, self._pieces),
        )
        counts = [] if host is None else [self._count(host.part(rows)) for rows in bounds]
        total = sum(counts) if agreement.rows is None else agreement.count
        if total <= 0:
            raise ValueError(
                f"step {agreement.step}: nothing in the batch enters the loss; mask or decode leave no token to score"
            )
        pieces = []
        for rows, count in zip(bounds, counts, strict=True):
            assert device_batch.batch is not None
            places = None if agreement.rows is None else agreement.rows[rows].to(self._device)
            pieces.append(MicroBatch(device_batch.batch.part(rows), count / total, places, agreement.clips))
        if len(pieces) < agreement.pieces:
            assert agreement.dummy is not None
            first = torch.zeros(agreement.dummy.size, dtype=torch.int64, device=self._device)
            empty = MicroBatch(agreement.dummy.to(self._device), 0.0, first, agreement.clips)
            pieces += [empty] * (agreement.pieces - len(pieces))
        return pieces

    def _index(self, step: int, skipped: Sequence[Skipped]) -> Int64[Tensor, " I"]:
        bad = {one.index for one in skipped}
        good = [index for index in self._sampler.batch(step).tolist() if index not in bad]
        return torch.tensor(good, dtype=torch.int64)

    def _rows(self, by_rank: Sequence[int], *, is_full: bool) -> Int64[Tensor, " R"]:
        """Places of the own clips in the batch; in a step with skipped files ranks just follow each other."""
        rank = place().rank
        own = by_rank[rank]
        if not is_full:
            return torch.arange(own) + sum(by_rank[:rank])
        videos = torch.from_numpy(self._sampler.rows)
        views = own // len(videos)
        return (videos[:, None] * views + torch.arange(views)).flatten()


def slices(size: int, pieces: int) -> list[slice]:
    """At most so many runs of rows of nearly equal length, none empty."""
    count = min(pieces, size)
    bounds = [size * piece // max(count, 1) for piece in range(count + 1)]
    return [slice(first, last) for first, last in pairwise(bounds)]


def parts(batch: Batch, pieces: int) -> list[Batch]:
    """At most so many pieces of nearly equal size, none empty."""
    return [batch.part(rows) for rows in slices(batch.size, pieces)]


def _dummy(batch: Batch | None, by_rank: Sequence[int]) -> Batch | None:
    """A clip of this rank, or of another where it has none; None where nobody has one."""
    givers = [rank for rank, clips in enumerate(by_rank) if clips]
    mine = None if batch is None else batch.part(slice(0, 1))
    if givers and len(givers) < len(by_rank):
        given = share_batch(mine, source=givers[0])
        return given if mine is None else mine
    return mine


def _all_skipped(skipped: Sequence[Skipped]) -> tuple[Skipped, ...]:
    """The skipped videos of all ranks."""
    texts = gather_texts(json.dumps([[one.index, one.name, str(one.path), one.reason] for one in skipped]))
    rows: list[Any] = [row for text in texts for row in json.loads(text)]
    return tuple(Skipped(index, name, Path(path), reason) for index, name, path, reason in rows)
