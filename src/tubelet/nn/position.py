"""Where a token is: a vector per place of the flattened grid, added to the tokens."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from tubelet.types import Grid


def sinusoid(tokens: int, width: int) -> Float[Tensor, "1 N D"]:
    """One-dimensional sine table over the flattened token index (t slowest), sine and cosine interleaved.

    `index / 10000^(2 floor(j/2) / width)`, sine for even j, cosine for odd (arXiv:1706.03762, section 3.5); not
    factorised over time and space (V1 `get_sinusoid_encoding_table`).
    """
    index = torch.arange(tokens, dtype=torch.float64).unsqueeze(1)
    column = torch.arange(width, dtype=torch.float64)
    angle = index / 10000.0 ** (2.0 * torch.floor(column / 2.0) / width)
    return torch.where(column % 2 == 0, angle.sin(), angle.cos()).float().unsqueeze(0)


def stretched_sinusoid(grid: Grid, width: int, *, trained: Grid | None) -> Float[Tensor, "1 N D"]:
    """The sine table of the grid that a model was trained with, stretched to the grid that it runs with."""
    if trained is None or trained == grid:
        return sinusoid(grid.tokens, width)
    return stretch(sinusoid(trained.tokens, width), trained, grid)


def stretch(table: Float[Tensor, "1 M D"], trained: Grid, grid: Grid) -> Float[Tensor, "1 N D"]:
    """A position table of one token grid for another: bicubic over height and width, linear over time.

    Each axis that keeps its length is left as it is, bit for bit.
    """
    columns = table[0].unflatten(0, tuple(trained)).permute(3, 0, 1, 2).double()  # [D,t,h,w]
    if (trained.h, trained.w) != (grid.h, grid.w):
        columns = F.interpolate(columns, size=(grid.h, grid.w), mode="bicubic", align_corners=False)
    if trained.t != grid.t:
        rows = columns.flatten(2).transpose(1, 2)  # [D, h*w, t]
        rows = F.interpolate(rows, size=grid.t, mode="linear", align_corners=False)
        columns = rows.transpose(1, 2).unflatten(2, (grid.h, grid.w))
    stretched: Tensor = columns.permute(1, 2, 3, 0).flatten(0, 2).to(table.dtype)
    return stretched.unsqueeze(0)


def learnt(tokens: int, width: int) -> nn.Parameter:
    """Vectors to be learnt, [1,N,D], at first normal with deviation 0.02: a table of positions, or a special token.

    # authors: the table of a ViT is detached in their forward, so it keeps its random start; ours learns.
    """
    table = nn.Parameter(torch.empty(1, tokens, width))
    nn.init.trunc_normal_(table, std=0.02)
    return table


def take_rows(table: Float[Tensor, "1 N D"], index: Int[Tensor, "B V"]) -> Float[Tensor, "B V D"]:
    """The positions of these tokens."""
    return table[0][index]
