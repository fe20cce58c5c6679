"""From the tokens of a clip to its one vector."""

from __future__ import annotations

from typing import Final, Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from tubelet.types import Grid

PoolingName = Literal["mean", "change"]


class PoolingRule(Protocol):
    """A rule that makes a vector of tokens; `read` is what the classifier's head reads, or the mean without one."""

    def __call__(
        self, tokens: Float[Tensor, "B N D"], grid: Grid, read: Float[Tensor, "B D"]
    ) -> Float[Tensor, "B width"]: ...


def mean(tokens: Float[Tensor, "B N D"], grid: Grid, read: Float[Tensor, "B D"]) -> Float[Tensor, "B width"]:  # noqa: ARG001
    """What the classifier's head reads; of a model without a head the mean of the tokens. D numbers."""
    return read


def change(tokens: Float[Tensor, "B N D"], grid: Grid, read: Float[Tensor, "B D"]) -> Float[Tensor, "B width"]:  # noqa: ARG001
    """How much the token of each place changes from each step to the next: (t-1)*h*w numbers.

    It says where and when something moves, not what, and leaves out what stays. For models that were pre-trained only:
    the mean of their tokens is mostly the scene. ValueError where a clip has one step.
    """
    if grid.t < 2:
        raise ValueError("pooling 'change' needs clips of at least two tubelets; take more frames, or 'mean'")
    steps = tokens.float().unflatten(1, (grid.t, grid.h * grid.w))
    lengths: Tensor = torch.linalg.vector_norm(steps.diff(dim=1), dim=-1)
    return lengths.flatten(1)


POOLINGS: Final[dict[PoolingName, PoolingRule]] = {"mean": mean, "change": change}
