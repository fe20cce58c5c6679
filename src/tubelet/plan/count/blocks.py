"""What a block of a network computes and holds for one clip, as shapes: the seam that all kinds of blocks share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, runtime_checkable

NORM_BYTES: Final = 8
"""Mean and deviation that a norm keeps for each row."""


class Linear(NamedTuple):
    """`rows` vectors of a clip through a matrix. `first`: nothing before it learns, so its input has no gradient."""

    rows: int
    inputs: int
    outputs: int
    first: bool = False

    @property
    def flops(self) -> int:
        """Forward."""
        return 2 * self.rows * self.inputs * self.outputs

    @property
    def parameters(self) -> int:
        """Matrix and bias."""
        return self.inputs * self.outputs + self.outputs


class Core(NamedTuple):
    """What a kernel of attention gets: `rows` queries, `tokens` keys and values, all heads together `width` wide."""

    rows: int
    tokens: int
    width: int
    heads: int


class Needs(NamedTuple):
    """Bytes that a block needs for one clip, without what its kernel of attention keeps and needs.

    `entered` is the input, `kept` all that backward reads, `mlp_kept` the MLP's part of it; `forward` what the end of
    forward has beside that. Backward needs on top of what is kept: `mlp` in the MLP; `attention` when it comes to the
    kernel, the MLP's part being gone; `inputs` behind that, the kernel's part being gone too.
    """

    entered: int
    kept: int
    mlp_kept: int
    forward: int
    mlp: int
    attention: int
    inputs: int = 0


@runtime_checkable
class AnyBlock(Protocol):
    """A block of any kind, for one clip. Plain data: equal blocks are alike."""

    @property
    def linears(self) -> tuple[Linear, ...]:
        """Its linear maps; the last one is the last that forward runs."""

    @property
    def core(self) -> Core:
        """What its attention is."""

    @property
    def mixing_flops(self) -> int:
        """Of forward, without the linear maps: attention and whatever pools or biases it."""

    @property
    def recomputes_all(self) -> bool:
        """Whether recomputing reaches the last linear map: PyTorch stops once it has all that backward needs."""

    @property
    def parameters(self) -> int:
        """All of them."""

    def needs(self, number: int, *, on_cpu: bool) -> Needs:
        """Bytes, where a number of the run's precision has so many."""


@dataclass(frozen=True)
class Block:
    """A transformer block that reads `tokens` rows of a clip; only the last `rows` of them ask and go on.

    `scaled`: with layer scale. `dropped`: with a drop path.
    """

    tokens: int
    rows: int
    width: int
    hidden: int
    heads: int
    scaled: bool = False
    dropped: bool = False

    @property
    def linears(self) -> tuple[Linear, ...]:
        """As `tubelet.nn.block.Block` multiplies: one matrix for q, k, v, or two where few rows ask."""
        width = self.width
        asks = (Linear(self.rows, width, width), Linear(self.tokens, width, 2 * width))
        return (
            *((Linear(self.tokens, width, 3 * width),) if self.rows == self.tokens else asks),
            Linear(self.rows, width, width),
            Linear(self.rows, width, self.hidden),
            Linear(self.rows, self.hidden, width),
        )

    @property
    def core(self) -> Core:
        return Core(self.rows, self.tokens, self.width, self.heads)

    @property
    def mixing_flops(self) -> int:
        """Logits, and the weighted sum of values."""
        return 4 * self.rows * self.tokens * self.width

    @property
    def recomputes_all(self) -> bool:
        return self.scaled or self.dropped

    @property
    def parameters(self) -> int:
        return sum(one.parameters for one in self.linears) + 4 * self.width

    def needs(self, number: int, *, on_cpu: bool) -> Needs:  # noqa: ARG002  alike everywhere
        tokens, rows, hidden = self.tokens * self.width, self.rows * self.width, self.rows * self.hidden
        scaled = rows * number if self.scaled else 0
        mlp_kept = rows * (4 + number) + 2 * hidden * number + NORM_BYTES * self.rows + scaled
        again = rows * number if self.rows < self.tokens else 0
        return Needs(
            entered=4 * tokens,
            kept=tokens * (4 + number) + again + NORM_BYTES * self.tokens + scaled + mlp_kept,
            mlp_kept=mlp_kept,
            forward=rows * (4 + 2 * number),
            mlp=rows * (4 + number) + 2 * number * hidden,
            attention=4 * rows,
        )
