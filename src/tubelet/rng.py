"""Randomness as an argument: every draw follows from the numbers that name it.

A sample's draw is named by (seed, epoch, index, view), so workers, resume and world size never change it.
A step's draw is named by (seed, step, rank). Each stream but "video" has a seed of its own, which follows from the
seed of the run and the name of the stream: so the draws of a stream are the same whatever other streams there are.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from tubelet.types import VIDEO

# No context variables: autograd's threads must see them when they recompute.
_rows: Mapping[str, tuple[Tensor, int]] | None = None
_step: tuple[int, int, int] | None = None
_stream = VIDEO


def generator(*names: int) -> np.random.Generator:
    """A NumPy generator for the draw with these names (non-negative integers)."""
    return np.random.default_rng(np.random.SeedSequence(names))


def stream_seed(seed: int, stream: str) -> int:
    """The seed of a stream in a run of this seed: that of the run for "video", a different one for each other name."""
    return seed if stream == VIDEO else int(generator(seed, zlib.crc32(stream.encode())).integers(2**62))


@contextmanager
def step_rng(seed: int, step: int, rank: int = 0) -> Iterator[None]:
    """Inside, torch's default generators (drop path, dropout, mixing, initial weights) follow from seed, step and rank.

    The state from before is put back on leaving, so nothing outside depends on how often this was entered.
    """
    global _step
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    before, _step = _step, (seed, step, rank)
    try:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(int(generator(seed, step, rank).integers(2**62)))
            yield
    finally:
        _step = before


@contextmanager
def stream_rng(stream: str) -> Iterator[None]:
    """Inside, draws are for the clips of this stream; a method enters it around what it computes of them.

    Within `step_rng`, a stream other than "video" draws from its own seed, and leaves the draws of others as they are.
    """
    global _stream
    own = nullcontext() if stream == VIDEO or _step is None else step_rng(stream_seed(_step[0], stream), *_step[1:])
    before, _stream = _stream, stream
    try:
        with own:
            yield
    finally:
        _stream = before


def same_stream() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Around a part of a network, and around its second run in backward, which is for the clips of the same stream.

    For torch's `checkpoint(context_fn=...)`, which puts back the state of the generators by itself.
    """
    return nullcontext(), _recomputing(_stream)


@contextmanager
def _recomputing(stream: str) -> Iterator[None]:
    global _stream
    before, _stream = _stream, stream
    try:
        yield
    finally:
        _stream = before


@contextmanager
def rows_of(rows: Mapping[str, Int[Tensor, " _"]], totals: Mapping[str, int]) -> Iterator[None]:
    """Inside, the clips at hand are `rows` of a batch of `totals` clips, by stream: `draw_rows` draws for all of them.

    So several processes draw for each clip what one process draws that has the whole batch.
    """
    global _rows
    before, _rows = _rows, {name: (some, totals[name]) for name, some in rows.items()}
    try:
        yield
    finally:
        _rows = before


def draw_rows(count: int, draw: Callable[[int], Tensor]) -> Tensor:
    """What `draw(rows)` gives for the `count` clips at hand, one row each."""
    if _rows is None:
        return draw(count)
    rows, total = _rows[_stream]
    assert len(rows) == count, f"draws are per clip of the stream {_stream}: {count} clips for {len(rows)} rows"
    return draw(total)[rows]
