"""Stochastic depth."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class DropPath(nn.Module):
    """Drops the whole branch of a clip with probability `rate`, in training only (arXiv:1603.09382).

    What is kept is divided by the chance to be kept. Draws from torch's default generator of the device.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        if self.rate == 0.0 or not self.training:
            return tokens
        kept = 1.0 - self.rate
        return tokens * tokens.new_empty(len(tokens), 1, 1).bernoulli_(kept).div_(kept)


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """From 0 in the first block linearly to `rate` in the last."""
    return [rate * block / max(depth - 1, 1) for block in range(depth)]
