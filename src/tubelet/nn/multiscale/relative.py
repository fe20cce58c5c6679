"""Decomposed relative positions: how far a key is from a query, counted on each axis by itself."""

from __future__ import annotations

from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from tubelet.nn.constants import register_constants
from tubelet.types import Grid

AXES: Final = ("t", "h", "w")
_ANSWERS: Final = ("bnthwd,tkd->bnthwk", "bnthwd,hkd->bnthwk", "bnthwd,wkd->bnthwk")


class RelativePositions(nn.Module):
    """A vector per distance on each axis; a query's product with it is added to its logit (arXiv:2112.01526, 4.1).

    `rows` are the lengths of the tables `rel_pos_t`, `rel_pos_h`, `rel_pos_w`, 0 for an axis that has none; a table of
    another length than the grids need is interpolated in every pass. Queries and keys may lie in grids of different
    step: the coarser one counts in steps of the finer.
    """

    places: Tensor

    def __init__(self, width: int, q_grid: Grid, kv_grid: Grid, *, rows: tuple[int, int, int]) -> None:
        super().__init__()
        self.q_grid, self._kv_grid = q_grid, kv_grid
        self.axes = [axis for axis in range(3) if rows[axis]]
        for axis in self.axes:
            table = nn.Parameter(torch.empty(rows[axis], width))
            nn.init.trunc_normal_(table, std=0.02)
            self.register_parameter(f"rel_pos_{AXES[axis]}", table)
        register_constants(self)

    def constants(self) -> dict[str, Tensor]:
        """Rows of the tables for each query and key of an axis, and the places of the keys."""
        rows = {f"distance_{AXES[axis]}": distances(self.q_grid[axis], self._kv_grid[axis]) for axis in self.axes}
        return {**rows, "places": places(self._kv_grid, self.axes)}

    def forward(self, q: Float[Tensor, "B heads N d"]) -> Float[Tensor, "B heads N E"]:
        """What each query, one per token of its grid, adds for a key in each place of each axis.

        `answers @ places.mT` is the bias of the logits; `E` is the sum of the key grid's sides.
        """
        asks = q.unflatten(2, tuple(self.q_grid))
        answers = []
        for axis in self.axes:
            index = self.get_buffer(f"distance_{AXES[axis]}")
            table = self.get_parameter(f"rel_pos_{AXES[axis]}")
            needed = table_rows(*index.shape)
            rows: Tensor = table if len(table) == needed else stretch_rows(table, needed)
            answers.append(torch.einsum(_ANSWERS[axis], asks, rows[index]).flatten(2, 4))
        return torch.cat(answers, dim=-1)


def table_rows(q_side: int, kv_side: int) -> int:
    """How many distances there are between two rows of places."""
    return 2 * max(q_side, kv_side) - 1


def distances(queries: int, keys: int) -> Int[Tensor, "q k"]:
    """Row of the table for each query and key of one axis; the farthest key behind the first query is row 0.

    # authors: distances in steps of the finer grid are cut to whole ones where the sides are no multiples.
    """
    q_step, k_step = max(keys / queries, 1.0), max(queries / keys, 1.0)
    q = torch.arange(queries, device="cpu").unsqueeze(1) * q_step
    k = torch.arange(keys, device="cpu").unsqueeze(0) * k_step
    return (q - k + (keys - 1) * k_step).long()


def places(grid: Grid, axes: list[int]) -> Float[Tensor, "N E"]:
    """Where each key is: a one for its place on each of these axes, zeros else."""
    index = torch.meshgrid(*[torch.arange(side) for side in grid], indexing="ij")
    columns = [F.one_hot(index[axis].flatten(), grid[axis]).float() for axis in axes]
    return torch.cat(columns, dim=1) if columns else torch.zeros(grid.tokens, 0)


def stretch_rows(table: Float[Tensor, "R D"], rows: int) -> Float[Tensor, "_ D"]:
    """A table of one axis for another number of rows: linear, ends not aligned (SlowFast `checkpoint.py`)."""
    stretched: Tensor = F.interpolate(table.mT.unsqueeze(0), size=rows, mode="linear", align_corners=False)
    return stretched[0].mT
