"""Blocks of a multiscale transformer as shapes (`tubelet.models.mvit.layers`), counted from its spec.

Letters: n tokens come in, q queries, k keys, D A O widths in, of attention, out, M hidden, K places of the pooling
kernel, E sides of the key grid that have relative positions. A class token is one more token wherever it is.

    linear maps       2*n*D*3*A + 2*q*A*A + 2*q*M*(A + O); the skip that widens 2*n*D*A, or 2*q*A*O
    pooling           2*(q + 2*k)*A*K      no class token
    attention         4*q*k*A
    relative          2*q*A*E              no class token

Bytes, with `a` of a number, `p` of what a pooling convolution reads (fp32 on a CPU); tokens between blocks are in fp32:

    kept              n*D*(4 + a)          input, and the same normed
                      3*n*A*p              queries, keys, values before pooling
                      4*(q + 2*k)*A        behind it, as their norm keeps them
                      axes*q*A*a           queries for relative positions, once for each axis
                      q*A*a                input of the projection
                      4*n*D + 8*q*D        skip that is pooled: what came, and where the largest were
                      q*A*(4 + a) + 2*q*M*a
    kernel            (2*q + 2*k)*W*a + 4*q*heads, W the heads widened by E

The kernel of attention gets relative positions as E more columns, and is measured where it is at hand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from tubelet.models.mvit.layers import TILE
from tubelet.models.mvit.model import BlockShape, MViTSpec, block_shapes
from tubelet.nn.drop_path import drop_path_rates
from tubelet.plan.count.blocks import NORM_BYTES, Core, Linear, Needs
from tubelet.types import ClipShape

TOKEN_BYTES = 4
WHERE_BYTES = 8
"""A pooled maximum keeps where it was."""


@dataclass(frozen=True)
class PooledBlock:
    """A block with pooling attention; tokens come and go in fp32. `first`: class tokens; `dropped`: has a drop path."""

    shape: BlockShape
    kernel_size: int
    hidden: int
    first: int
    dropped: bool

    @cached_property
    def came(self) -> int:
        """Tokens."""
        return self.shape.pooling.grid.tokens + self.first

    @cached_property
    def queries(self) -> int:
        """Tokens that go on."""
        return self.shape.pooling.q_grid.tokens + self.first

    @cached_property
    def keys(self) -> int:
        """And values."""
        return self.shape.pooling.kv_grid.tokens + self.first

    @cached_property
    def sides(self) -> tuple[int, ...]:
        """Of the key grid, those that have relative positions."""
        pooling = self.shape.pooling
        return tuple(side for side, rows in zip(pooling.kv_grid, pooling.rows, strict=True) if rows)

    @cached_property
    def linears(self) -> tuple[Linear, ...]:
        into, width, out, _ = self._widths
        skip = (Linear(self.came, into, width),) if width != into else ()
        beside = (Linear(self.queries, width, out),) if out != width else ()
        return (
            Linear(self.came, into, 3 * width),
            Linear(self.queries, width, width),
            *skip,
            Linear(self.queries, width, self.hidden),
            Linear(self.queries, self.hidden, out),
            *beside,
        )

    @cached_property
    def core(self) -> Core:
        """Heads are wider by a column for each side's place, and filled up to whole tiles."""
        _, width, _, heads = self._widths
        extra = sum(self.sides)
        head = -(-(width // heads + extra) // TILE) * TILE if extra else width // heads
        return Core(self.queries, self.keys, heads * head, heads)

    @property
    def mixing_flops(self) -> int:
        width, pooling = self.shape.widths.attention, self.shape.pooling
        pooled = (pooling.q_grid.tokens + 2 * pooling.kv_grid.tokens) * self.kernel_size
        relative = pooling.q_grid.tokens * sum(self.sides)
        return 2 * width * (pooled + 2 * self.queries * self.keys + relative)

    @property
    def recomputes_all(self) -> bool:
        return self.dropped

    @cached_property
    def parameters(self) -> int:
        into, width, _, heads = self._widths
        head = width // heads
        pools = 3 * head * (self.kernel_size + 2) + head * sum(self.shape.pooling.rows)
        return sum(one.parameters for one in self.linears) + pools + 2 * (into + width)

    def needs(self, number: int, *, on_cpu: bool) -> Needs:
        into, width, out, heads = self._widths
        came, queries, read = self.came * into, self.queries * width, self.came * width
        pooled = 4 if on_cpu else number
        mlp_kept = (
            queries * (TOKEN_BYTES + number) + NORM_BYTES * self.queries + 2 * self.queries * self.hidden * number
        )
        normed = (self.queries + 2 * self.keys) * (4 * width + NORM_BYTES * heads)
        asked = queries * number * (1 + len(self.sides))
        kept = came * (TOKEN_BYTES + number) + NORM_BYTES * self.came + 3 * read * pooled + normed + asked
        went = self.queries * max(width, out)
        return Needs(
            entered=came * TOKEN_BYTES,
            kept=kept + self._skip_kept(on_cpu=on_cpu) + mlp_kept,
            mlp_kept=mlp_kept,
            forward=went * (TOKEN_BYTES + 2 * number),
            mlp=went * (TOKEN_BYTES + number) + 2 * number * self.queries * self.hidden,
            attention=queries * (TOKEN_BYTES + 2 * number),
            inputs=queries * TOKEN_BYTES + 3 * read * number + 2 * read * pooled - mlp_kept - asked,
        )

    def _skip_kept(self, *, on_cpu: bool) -> int:
        """A maximum keeps what it was taken from and where it was; a norm on a CPU has kept the block's input too."""
        into, width, _, _ = self._widths
        if math.prod(self.shape.pooling.q_stride) == 1:
            return 0
        taken = WHERE_BYTES * self.queries * width
        if width != into:
            return taken + self.came * width * TOKEN_BYTES
        return taken if on_cpu else taken + self.came * into * TOKEN_BYTES

    @cached_property
    def _widths(self) -> tuple[int, int, int, int]:
        widths = self.shape.widths
        return widths.into, widths.attention, widths.out, widths.heads


def pooled_blocks(spec: MViTSpec, clip: ClipShape) -> tuple[PooledBlock, ...]:
    """All blocks for clips of this shape; ValueError where the patch stride does not divide the clip."""
    rates = drop_path_rates(spec.drop_path, spec.depth)
    blocks = []
    for shape, rate in zip(block_shapes(spec, clip), rates, strict=True):
        widths = shape.widths
        blocks.append(
            PooledBlock(
                shape=shape,
                kernel_size=math.prod(spec.pool_kernel),
                hidden=int(widths.attention * spec.mlp_ratio),
                first=int(spec.class_token),
                dropped=rate > 0,
            )
        )
    return tuple(blocks)
