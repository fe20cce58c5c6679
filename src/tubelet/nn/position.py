"""Where a token is: a vector per place of the flattened grid, added to the tokens."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


def sinusoid(tokens: int, width: int) -> Float[Tensor, "1 N D"]:
    """One-dimensional sine table over the flattened token index (t slowest), sine and cosine interleaved.

    `index / 10000^(2 floor(j/2) / width)`, sine for even j, cosine for odd (arXiv:1706.03762, section 3.5); not
    factorised over time and space (V1 `get_sinusoid_encoding_table`).
    """
    index = torch.arange(tokens, dtype=torch.float64).unsqueeze(1)
    column = torch.arange(width, dtype=torch.float64)
    angle = index / 10000.0 ** (2.0 * torch.floor(column / 2.0) / width)
    return torch.where(column % 2 == 0, angle.sin(), angle.cos()).float().unsqueeze(0)


def learnt(tokens: int, width: int) -> nn.Parameter:
    """A table to be learnt, [1,N,D], at first normal with deviation 0.02.

    # authors: the table is detached in their forward, so it keeps its random start; ours learns.
    """
    table = nn.Parameter(torch.empty(1, tokens, width))
    nn.init.trunc_normal_(table, std=0.02)
    return table


def take_rows(table: Float[Tensor, "1 N D"], index: Int[Tensor, "B V"]) -> Float[Tensor, "B V D"]:
    """The positions of these tokens."""
    return table[0][index]
