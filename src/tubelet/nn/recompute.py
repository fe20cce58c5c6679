"""Activation checkpointing (arXiv:1604.06174): blocks that keep their input alone, and run again in backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Recomputing = Annotated[
    bool | Annotated[int, Field(ge=0)],
    Field(description="recompute blocks in backward: less memory, slower; a number: the first so many blocks only"),
]
"""Of a stack of blocks: all, none, or the first so many."""


def recomputed_blocks(which: bool | int, depth: int) -> int:
    """How many of `depth` blocks are recomputed: the first so many. The others cost memory, but no time."""
    if isinstance(which, bool):
        return depth if which else 0
    return min(which, depth)


def recompute(run: Callable[..., Tensor], *inputs: Tensor | int) -> Tensor:
    """What `run` gives for the inputs, with the same draws and the same gradients, bit for bit."""
    result: Tensor = checkpoint(run, *inputs, use_reentrant=False)
    return result
