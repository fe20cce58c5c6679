"""The pre-norm transformer block."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Final

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tubelet.nn.attention import Attention
from tubelet.nn.drop_path import DropPath
from tubelet.rng import same_stream

NORM_EPS: Final = 1e-6


class Mlp(nn.Module):
    """Two linear maps with exact GELU between them; `out` is the width behind them where it is another."""

    def __init__(self, width: int, hidden: int, *, out: int | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, out or width)

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B N W"]:
        changed: Tensor = self.fc2(F.gelu(self.fc1(tokens)))
        return changed


def mlp_ratio(width: int, hidden: int) -> float:
    """The ratio for which int(width * ratio) is exactly `hidden` (48/11 of 1408 is 6144, but not in floats)."""
    ratio = hidden / width
    while int(width * ratio) < hidden:
        ratio = math.nextafter(ratio, math.inf)
    return ratio


class Block(nn.Module):
    """`x + attention(norm1(x))`, then `x + mlp(norm2(x))`; LayerNorm eps 1e-6 (V1 `modeling_finetune.py`).

    With `layer_scale` each branch is multiplied by a learnt vector that starts at that value (arXiv:2103.17239).
    """

    def __init__(
        self,
        attention: Attention,
        *,
        mlp_ratio: float,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
        norm_eps: float = NORM_EPS,
    ) -> None:
        super().__init__()
        width = attention.width
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attention = attention
        self.scale1 = _scale(width, layer_scale)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.scale2 = _scale(width, layer_scale)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        return self._add(tokens, self.attention(self.norm1(tokens)))

    def tail(self, tokens: Float[Tensor, "B N D"], count: int) -> Float[Tensor, "B K D"]:
        """The last `count` rows of `forward`, at the cost of those rows: for a last block."""
        return self._add(tokens[:, tokens.shape[1] - count :], self.attention.tail(self.norm1(tokens), count))

    def _add(self, tokens: Float[Tensor, "B N D"], attended: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        tokens = tokens + self.drop_path(_scaled(attended, self.scale1))
        changed: Tensor = self.mlp(self.norm2(tokens))
        return torch.add(tokens, self.drop_path(_scaled(changed, self.scale2)))


def _scale(width: int, start: float | None) -> nn.Parameter | None:
    return None if start is None else nn.Parameter(torch.full((width,), start))


def _scaled(branch: Float[Tensor, "B N D"], scale: Float[Tensor, " D"] | None) -> Float[Tensor, "B N D"]:
    return branch if scale is None else branch * scale


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
    result: Tensor = checkpoint(run, *inputs, use_reentrant=False, context_fn=same_stream)
    return result
