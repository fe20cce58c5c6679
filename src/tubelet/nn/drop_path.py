"""Stochastic depth."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from tubelet.rng import draw_rows


class DropPath(nn.Module):
    """Drops the whole branch of a clip with probability `rate`, in training only (arXiv:1603.09382).

    What is kept is divided by the chance to be kept. Draws from torch's default generator of the device, one number a
    clip, and the same ones however many processes share the batch (`tubelet.rng.rows_of`).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.is_off = rate == 0.0

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        if self.is_off or not self.training:
            return tokens
        return tokens * self.draw(tokens)

    def draw(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B 1 1"]:
        """The factor of each clip; a function, so that it can stay out of what is compiled."""
        kept = 1.0 - self.rate
        return draw_rows(len(tokens), lambda rows: tokens.new_empty(rows, 1, 1).bernoulli_(kept).div_(kept))


class Dropout(nn.Module):
    """Drops single numbers of a clip's row with probability `rate`, in training only; what is kept is scaled up.

    The same numbers as torch's `nn.Dropout`, and the same ones however many processes share the batch.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, rows: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        if self.rate == 0.0 or not self.training:
            return rows
        kept = 1.0 - self.rate
        width = rows.shape[1]
        return rows * draw_rows(len(rows), lambda count: rows.new_empty(count, width).bernoulli_(kept).div_(kept))


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """From 0 in the first block linearly to `rate` in the last."""
    return [rate * block / max(depth - 1, 1) for block in range(depth)]
