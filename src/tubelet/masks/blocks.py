"""Rules that hide blocks of tokens, as MaskFeat and BEiT draw them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, ClassVar, Final, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool
from pydantic import Field

from tubelet.masks.base import MaskSpec, Ratio
from tubelet.types import Grid

Side = Annotated[int, Field(ge=1)]
Cell = tuple[Side, Side, Side]

ASPECTS: Final = (0.3, 1 / 0.3)
"""Height over width of a block, the least and the most, as in the authors' generators (arXiv:2106.08254)."""


class CubeMask(MaskSpec):
    """Blocks in space and time, drawn on cells of tokens until the ratio is near (MaskFeat, arXiv:2112.09133, 3.2).

    As the released generator does: a block covers between a fifth and all of the area of a frame, is 1 to t steps long,
    and narrower and lower than the frame. It is taken where it hides something new, and no more than still lacks; when
    none of 100 fits, that is all. So a different number of tokens is hidden in each clip, up to round(ratio * cells),
    and the middle of the clip more often than its ends.
    """

    uneven: ClassVar[bool] = True
    kind: Literal["cube"] = "cube"
    ratio: Ratio = 0.4
    cell: Cell = Field(default=(1, 2, 2), description="tokens of a cell: over time, height, width")

    def __call__(self, grid: Grid, rng: np.random.Generator) -> Bool[np.ndarray, "t h w"]:
        """True = hidden. ValueError where the grid has no whole cells, or no block fits."""
        cells = _cells(grid, self.cell, kind=self.kind)
        area = cells.h * cells.w

        def draw(lacking: int) -> _Block:
            del lacking
            h, w = _sides(area // 5, area, rng)
            return _Block(int(rng.integers(1, cells.t + 1)), h, w)

        return _repeat(_blocks(cells, draw, rng, rule=self, tries=100), self.cell)


class BlockTube(MaskSpec):
    """Blocks of one frame's cells, the same in all frames; of an image the blocks of BEiT (arXiv:2106.08254, alg. 1).

    As the released generator of MaskFeat (arXiv:2112.09133, table of mask shapes) does: like `CubeMask` without time,
    but a block covers at least a fifth of what is to be hidden, at most what still lacks, and 10 tries end it. For
    images the authors draw on the tokens themselves: `cell: [1, 1, 1]`.
    """

    uneven: ClassVar[bool] = True
    kind: Literal["block_tube"] = "block_tube"
    ratio: Ratio = 0.4
    cell: Cell = Field(default=(1, 2, 2), description="tokens of a cell: over time, height, width")
    smallest: int | None = Field(default=None, ge=1, description="cells of the smallest block; null = by ratio")
    largest: int | None = Field(default=None, ge=1, description="cells of the largest block; null = what still lacks")

    def __call__(self, grid: Grid, rng: np.random.Generator) -> Bool[np.ndarray, "t h w"]:
        """True = hidden. ValueError where the grid has no whole cells, or no block fits."""
        cells = _cells(grid, self.cell, kind=self.kind)
        frame = cells._replace(t=1)
        fewest = self.smallest or round(self.ratio * frame.tokens) // 5

        def draw(lacking: int) -> _Block:
            return _Block(1, *_sides(fewest, lacking, rng))

        hidden = _blocks(frame, draw, rng, rule=self, tries=10, largest=self.largest)
        return _repeat(np.repeat(hidden, cells.t, axis=0), self.cell)


class _Block(NamedTuple):
    """Cells over time, height and width."""

    t: int
    h: int
    w: int


def _blocks(
    cells: Grid,
    draw: Callable[[int], _Block],
    rng: np.random.Generator,
    *,
    rule: CubeMask | BlockTube,
    tries: int,
    largest: int | None = None,
) -> Bool[np.ndarray, "t h w"]:
    """Blocks one by one, of sides that `draw` gives for the number of cells they may hide, at random places.

    `tries` in vain end it once there is a block; before, they would end a run at the clip whose first ones all miss.
    """
    wanted = round(rule.ratio * cells.tokens)
    hidden = np.zeros(cells, dtype=np.bool_)
    lacking, left = wanted, max(tries, 50_000)  # where 1 of 1,000 tries fits, one clip in 10^21 gets none
    while lacking > 0 and left > 0:
        most = min(lacking, largest or lacking)
        t, h, w = draw(most)
        left -= 1
        if not (h < cells.h and w < cells.w):
            continue
        first = [int(rng.integers(whole - side + 1)) for whole, side in zip(cells, (t, h, w), strict=True)]
        place = tuple(slice(start, start + side) for start, side in zip(first, (t, h, w), strict=True))
        new = t * h * w - int(hidden[place].sum())
        if 0 < new <= most:
            hidden[place] = True
            lacking, left = lacking - new, tries
    if lacking == wanted or wanted == cells.tokens:
        what = "everything" if wanted == cells.tokens else "nothing"
        grid = " x ".join(map(str, cells))
        change = "mask.ratio, mask.cell or mask.smallest" if isinstance(rule, BlockTube) else "mask.ratio or mask.cell"
        raise ValueError(f"mask {rule.kind}: ratio {rule.ratio} of {grid} cells hides {what}; change {change}")
    return hidden


def _sides(least: int, most: int, rng: np.random.Generator) -> tuple[int, int]:
    """Height and width of a block whose area is uniform in these bounds, and the logarithm of its aspect, too."""
    area = least + (most - least) * rng.random()  # near the end of a tube the least is above the most
    aspect = math.exp(rng.uniform(math.log(ASPECTS[0]), math.log(ASPECTS[1])))
    return round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))


def _cells(grid: Grid, cell: Cell, *, kind: str) -> Grid:
    """The grid of cells; ValueError where the grid of tokens has no whole ones."""
    if any(tokens % side for tokens, side in zip(grid, cell, strict=True)):
        whole, part = (" x ".join(map(str, sides)) for sides in (grid, cell))
        raise ValueError(f"mask {kind}: {whole} tokens have no whole cells of {part}; change mask.cell")
    return Grid(*(tokens // side for tokens, side in zip(grid, cell, strict=True)))


def _repeat(cells: Bool[np.ndarray, "t h w"], cell: Cell) -> Bool[np.ndarray, "T H W"]:
    """Of each cell its tokens."""
    return np.kron(cells, np.ones(cell, dtype=np.bool_))
