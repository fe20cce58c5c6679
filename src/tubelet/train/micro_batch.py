"""How a step is shared out: what all ranks know of it before they take it, and the pieces that each of them runs.

The loss of a step is the sum over its streams of weight * mean over what counts in the stream of the whole batch,
wherever its clips are: each piece weighs as much as it counts. Draws are those of one process that has the whole batch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import add, or_
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tubelet.data.dataset import HostBatch, Skipped
from tubelet.data.streams import StreamSampler
from tubelet.data.workers.loader import DeviceBatch
from tubelet.methods.base import Method
from tubelet.rng import rows_of, step_rng
from tubelet.train.distributed.process_group import gather, gather_texts, place, share_batch
from tubelet.types import Batch, Output

Rows = dict[str, Int64[Tensor, " _"]]
"""Numbers of clips or videos, by stream."""


@dataclass(frozen=True)
class StepAgreement:
    """What all ranks know of the step that will be number `step`; what is a dict is by stream.

    `clips` and `counts` are sums over the ranks; `skipped` and `index` name the bad and the good videos of all.
    `stop` is the signal to stop after this step. Every rank runs `pieces` pieces, each with clips of every stream; a
    rank that has too few adds the clip of the stream in `dummy`, which weighs nothing there. `rows` are the places of
    this rank's clips in the batch, None for one process with one stream.
    """

    step: int
    clips: dict[str, int]
    counts: dict[str, float]
    pieces: int
    skipped: tuple[Skipped, ...]
    index: Rows
    stop: int | None
    dummy: Batch | None = None
    rows: Rows | None = None

    @property
    def is_complete(self) -> bool:
        """Whether there is a clip of every stream: else there is no such step."""
        return all(self.clips.values())


@dataclass(frozen=True)
class MicroBatch:
    """A part of the batch on the device; what is a dict is by stream.

    `shares` say how much of the stream in the whole batch this part is, and `weights` what the stream weighs in the
    loss of the step. `rows` are its places among all `clips`.
    """

    batch: Batch
    shares: dict[str, float]
    weights: Mapping[str, float]
    rows: Rows | None
    clips: dict[str, int]

    @contextmanager
    def draws(self, seed: int, step: int) -> Iterator[None]:
        """Inside, draws are those for these rows of the whole batch; without rows the caller has set them."""
        if self.rows is None:
            yield
            return
        with step_rng(seed, step), rows_of(self.rows, self.clips):
            yield

    def loss(self, losses: Mapping[str, Float[Tensor, ""]], *, scale: float = 1.0) -> Float[Tensor, ""]:
        """The part of the step's loss that this piece has, times `scale`, from the losses of its streams."""
        assert losses.keys() == self.shares.keys(), f"losses of {list(losses)} for streams {list(self.shares)}"
        return reduce(add, [losses[name] * (self.weights[name] * share * scale) for name, share in self.shares.items()])

    def scalars(self, output: Output) -> dict[str, Float[Tensor, ""]]:
        """What the log has of this piece: a step's numbers are the sums over its pieces.

        "loss" is that of the step. The metrics of streams other than the first bear the name of their stream, and where
        there are several, each has its own "loss_<stream>", too, without its weight.
        """
        first = next(iter(self.shares))
        found = {"loss": self.loss({name: value.detach() for name, value in output.losses.items()})}
        for name, share in self.shares.items():
            metrics = dict(output.metrics.get(name, {}))
            own = {key if name == first else f"{key}_{name}": value for key, value in metrics.items()}
            if len(self.shares) > 1:
                own[f"loss_{name}"] = output.losses[name]
            found |= {key: value.detach() * share for key, value in own.items()}
        return found


class StepPlan:
    """Shares out the steps of `sampler`. `method` says what counts; each rank cuts its own clips in `pieces`.

    `weights` are those of the streams in the loss.
    """

    def __init__(
        self,
        sampler: StreamSampler,
        method: Method,
        *,
        weights: Mapping[str, float],
        pieces: int,
        device: torch.device,
    ) -> None:
        self._sampler, self._method, self._pieces, self._device = sampler, method, pieces, device
        self._weights = weights

    def agree(self, host: HostBatch, step: int, *, stop: int | None) -> StepAgreement:
        """What all ranks have for the step after `step` steps. `stop` is a signal that this process got."""
        names = list(self._sampler.streams)
        sizes = {} if host.batch is None else host.batch.sizes
        counts = {} if host.batch is None else self._method.count(host.batch)
        mine = [*(sizes.get(name, 0) for name in names), *(counts.get(name, 0.0) for name in names)]
        ranks = gather([*mine, stop or 0, len(host.skipped)])
        by_rank = {name: [int(row[place]) for row in ranks] for place, name in enumerate(names)}
        totals = {name: sum(row[place] for row in ranks) for place, name in enumerate(names, start=len(names))}
        skipped = _all_skipped(host.skipped) if any(row[-1] for row in ranks) else ()
        return StepAgreement(
            step=step + 1,
            clips={name: sum(clips) for name, clips in by_rank.items()},
            counts=totals,
            pieces=min(self._pieces, max(max(clips) for clips in by_rank.values())),
            skipped=skipped,
            index={name: self._index(name, step, skipped) for name in names},
            stop=int(max(row[-2] for row in ranks)) or None,
            dummy=_dummy(host.batch, by_rank),
            rows=self._rows(by_rank, skipped) if place().world > 1 or len(names) > 1 else None,
        )

    def split(self, device_batch: DeviceBatch, agreement: StepAgreement) -> list[MicroBatch]:
        """The pieces of this rank; ValueError where nothing of a stream counts in the whole batch."""
        for name, total in agreement.counts.items():
            if total <= 0:
                of_stream = "" if len(agreement.counts) == 1 else f" of stream {name}"
                raise ValueError(
                    f"step {agreement.step}: nothing{of_stream} in the batch enters the loss; mask or decode leave no "
                    "token to score"
                )
        cuts = cuts_of(device_batch.batch, self._pieces)
        own = [cuts[number] if number < len(cuts) else {} for number in range(agreement.pieces)]
        return [self._piece(device_batch, agreement, rows) for rows in own]

    def _piece(self, device_batch: DeviceBatch, agreement: StepAgreement, own: Mapping[str, slice]) -> MicroBatch:
        """The clips `own` of this rank, and one that weighs nothing of each stream without any."""
        counts, batches = {name: 0.0 for name in agreement.clips}, []
        host, device = device_batch.host.batch, device_batch.batch
        if host is not None and device is not None and own:
            counts |= self._method.count(host.part(own))
            batches.append(device.part(own))
        missing = [name for name in agreement.clips if name not in own]
        if missing:
            assert agreement.dummy is not None
            batches.append(agreement.dummy.part(dict.fromkeys(missing, slice(None))).to(self._device))
        batch = reduce(or_, batches).part(dict.fromkeys(agreement.clips, slice(None)))  # streams in the order of all
        return MicroBatch(
            batch,
            shares={name: count / agreement.counts[name] for name, count in counts.items()},
            weights=self._weights,
            rows=None if agreement.rows is None else self._places(batch, agreement.rows, own),
            clips=agreement.clips,
        )

    def _places(self, batch: Batch, rows: Rows, own: Mapping[str, slice]) -> Rows:
        """Places in the whole batch of these clips; a clip that weighs nothing draws what the first of all draws."""
        zeros = {name: torch.zeros(size, dtype=torch.int64) for name, size in batch.sizes.items() if name not in own}
        found = {name: rows[name][some] for name, some in own.items()} | zeros
        return {name: some.to(self._device) for name, some in found.items()}

    def _index(self, name: str, step: int, skipped: Sequence[Skipped]) -> Int64[Tensor, " I"]:
        bad = {one.index for one in skipped if one.stream == name}
        good = [index for index in self._sampler.streams[name].batch(step).tolist() if index not in bad]
        return torch.tensor(good, dtype=torch.int64)

    def _rows(self, by_rank: Mapping[str, Sequence[int]], skipped: Sequence[Skipped]) -> Rows:
        """Places of the own clips in the batch; of a stream with skipped files ranks just follow each other."""
        rank, gaps, found = place().rank, {one.stream for one in skipped}, {}
        for name, clips in by_rank.items():
            own = clips[rank]
            if name in gaps:
                found[name] = torch.arange(own) + sum(clips[:rank])
                continue
            videos = torch.from_numpy(self._sampler.streams[name].rows)
            views = own // len(videos)
            found[name] = (videos[:, None] * views + torch.arange(views)).flatten()
        return found


def slices(size: int, pieces: int) -> list[slice]:
    """At most so many runs of rows of nearly equal length, none empty."""
    count = min(pieces, size)
    bounds = [size * piece // max(count, 1) for piece in range(count + 1)]
    return [slice(first, last) for first, last in pairwise(bounds)]


def cuts_of(batch: Batch | None, pieces: int) -> list[dict[str, slice]]:
    """The rows of each stream in each of at most so many pieces: nearly equally many of a stream in all that have any.

    A stream with fewer clips than there are pieces is in the first ones only.
    """
    sizes = {} if batch is None else batch.sizes
    runs = {name: slices(size, pieces) for name, size in sizes.items()}
    most = max(map(len, runs.values()), default=0)
    return [{name: run[number] for name, run in runs.items() if number < len(run)} for number in range(most)]


def parts(batch: Batch, pieces: int) -> list[Batch]:
    """At most so many pieces, none empty, with nearly equally many clips of each stream."""
    return [batch.part(rows) for rows in cuts_of(batch, pieces)]


def _dummy(batch: Batch | None, by_rank: Mapping[str, Sequence[int]]) -> Batch | None:
    """A clip of each stream of this rank, or of another rank where it has none; None where nobody has any."""
    first = slice(0, 1)
    own = [] if batch is None else [batch.part({name: first}) for name in batch.clips]
    held = {name: one for one in own for name in one.clips}
    for name, clips in by_rank.items():
        givers = [rank for rank, count in enumerate(clips) if count]
        if givers and len(givers) < len(clips):
            given = share_batch(held.get(name), source=givers[0])
            held.setdefault(name, given)
    return reduce(or_, held.values()) if held else None


def _all_skipped(skipped: Sequence[Skipped]) -> tuple[Skipped, ...]:
    """The skipped videos of all ranks."""
    if place().world == 1:
        return tuple(skipped)
    texts = gather_texts(json.dumps([[one.index, one.name, str(one.path), one.reason, one.stream] for one in skipped]))
    rows: list[Any] = [row for text in texts for row in json.loads(text)]
    return tuple(Skipped(index, name, Path(path), reason, stream) for index, name, path, reason, stream in rows)
