"""Which tokens are hidden from the encoder, and which the decoder predicts: specs that are called, no weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Final, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool
from pydantic import Field, model_validator

from tubelet.spec import ByKind, Spec
from tubelet.types import Grid

Side = Annotated[int, Field(ge=1)]
Cell = tuple[Side, Side, Side]

Spared = Annotated[float, Field(gt=0.0, lt=1.0, description="share of the tokens that is not predicted")]
ASPECTS: Final = (0.3, 1 / 0.3)
"""Height over width of a block, the least and the most, as in the authors' generators (arXiv:2106.08254)."""

Ratio = Annotated[float, Field(gt=0.0, lt=1.0, description="share of the tokens that is hidden from the encoder")]


class Tube(Spec):
    """One spatial pattern for all frames (VideoMAE, arXiv:2203.12602, section 3.3).

    Hides int(ratio * h * w) places, as the authors' generator does: 0.9 of 14x14 is 176 of 196.
    """

    kind: Literal["tube"] = "tube"
    ratio: Ratio = 0.9

    def __call__(self, grid: Grid, rng: np.random.Generator) -> Bool[np.ndarray, "t h w"]:
        """True = hidden. ValueError where this ratio hides nothing, or everything, on this grid."""
        place = _pick(grid.h * grid.w, rng, rule=self).reshape(1, grid.h, grid.w)
        return np.repeat(place, grid.t, axis=0)


class Random(Spec):
    """int(ratio * N) tokens anywhere in space and time (MAE-ST, arXiv:2205.09113, section 3.2)."""

    kind: Literal["random"] = "random"
    ratio: Ratio = 0.9

    def __call__(self, grid: Grid, rng: np.random.Generator) -> Bool[np.ndarray, "t h w"]:
        """True = hidden. ValueError where this ratio hides nothing, or everything, on this grid."""
        return _pick(grid.tokens, rng, rule=self).reshape(grid)


class Frame(Spec):
    """Whole time steps, int(ratio * t) of them (VideoMAE, arXiv:2203.12602, table 1b).

    The default hides 7 of 8 time steps. Each step is `tubelet` frames long. MaskFeat (arXiv:2112.09133) takes the
    whole number next to ratio * t: `count: nearest`.
    """

    kind: Literal["frame"] = "frame"
    ratio: Ratio = 0.875
    count: Literal["below", "nearest"] = Field(default="below", description="which whole number of time steps")

    def __call__(self, grid: Grid, rng: np.random.Generator) -> Bool[np.ndarray, "t h w"]:
        """True = hidden. ValueError where this ratio hides nothing, or everything, on this grid."""
        count = round(self.ratio * grid.t) if self.count == "nearest" else None
        steps = _pick(grid.t, rng, rule=self, count=count).reshape(grid.t, 1, 1)
        return np.broadcast_to(steps, grid).copy()


class Cube(Spec):
    """Blocks in space and time, drawn on cells of tokens until the ratio is near (MaskFeat, arXiv:2112.09133, 3.2).

    As the released generator does: a block covers between a fifth and all of the area of a frame, is 1 to t steps long,
    and narrower and lower than the frame. It is taken where it hides something new, and no more than still lacks; when
    none of 100 fits, that is all. So another number of tokens is hidden in each clip, up to round(ratio * cells), and
    the middle of the clip more often than its ends.
    """

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


class BlockTube(Spec):
    """Blocks of one frame's cells, the same in all frames; of an image the blocks of BEiT (arXiv:2106.08254, alg. 1).

    As the released generator of MaskFeat (arXiv:2112.09133, table of mask shapes) does: like `Cube` without time, but a
    block covers at least a fifth of what is to be hidden, at most what still lacks, and 10 tries end it. For images
    the authors draw on the tokens themselves: `cell: [1, 1, 1]`.
    """

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


class All(Spec):
    """The decoder predicts every hidden token and no other (VideoMAE)."""

    kind: Literal["all"] = "all"

    def __call__(
        self, grid: Grid, hidden: Bool[np.ndarray, "t h w"], rng: np.random.Generator
    ) -> Bool[np.ndarray, "t h w"]:
        """True = predicted. `grid` and `rng` are what rules that draw need; this one does not."""
        del grid, rng
        return hidden.copy()


class RunningCell(Spec):
    """Cells of 2x2 places whose left-out places run round over time (VideoMAE V2, arXiv:2303.16727, section 3.2).

    int(4 * ratio) of the four places are left out: 1, 2 or 3. Each draw is one of four patterns; in four time steps
    every place is left out equally often. Tokens that the encoder sees are predicted, too, but do not enter the loss.
    """

    kind: Literal["running_cell"] = "running_cell"
    ratio: Spared = 0.5

    @model_validator(mode="after")
    def _leaves_out_some(self) -> RunningCell:
        if int(4 * self.ratio) == 0:
            raise ValueError(f"ratio {self.ratio} of a cell of 4 places leaves out none; choose 0.25, 0.5 or 0.75")
        return self

    def __call__(
        self, grid: Grid, hidden: Bool[np.ndarray, "t h w"], rng: np.random.Generator
    ) -> Bool[np.ndarray, "t h w"]:
        """True = predicted. ValueError where the grid has no whole cells. What is hidden makes no difference."""
        del hidden
        return self.pattern(grid, int(rng.integers(4)))

    def pattern(self, grid: Grid, start: int) -> Bool[np.ndarray, "t h w"]:
        """The pattern `start`, 0 to 3. The queue has moved once before the first time step, as the authors'."""
        if grid.h % 2 or grid.w % 2:
            raise ValueError(f"decode running_cell: {grid.h} x {grid.w} tokens have no whole cells of 2 x 2")
        queue = np.arange(4) >= int(4 * self.ratio)
        cells = [np.roll(queue, -(start + step + 1)).reshape(2, 2) for step in range(grid.t)]
        return np.tile(np.stack(cells), (1, grid.h // 2, grid.w // 2))


class FrameDecode(Spec):
    """All tokens of some time steps; int(ratio * t) steps are left out (VideoMAE V2, arXiv:2303.16727, ablation)."""

    kind: Literal["frame"] = "frame"
    ratio: Spared = 0.5

    def __call__(
        self, grid: Grid, hidden: Bool[np.ndarray, "t h w"], rng: np.random.Generator
    ) -> Bool[np.ndarray, "t h w"]:
        """True = predicted, hidden or not. ValueError where this ratio leaves out nothing."""
        del hidden
        steps = ~_pick(grid.t, rng, rule=self).reshape(grid.t, 1, 1)
        return np.broadcast_to(steps, grid).copy()


class RandomDecode(Spec):
    """Tokens anywhere; int(ratio * N) are left out (VideoMAE V2, arXiv:2303.16727, ablation)."""

    kind: Literal["random"] = "random"
    ratio: Spared = 0.5

    def __call__(
        self, grid: Grid, hidden: Bool[np.ndarray, "t h w"], rng: np.random.Generator
    ) -> Bool[np.ndarray, "t h w"]:
        """True = predicted, hidden or not. ValueError where this ratio leaves out nothing."""
        del hidden
        return ~_pick(grid.tokens, rng, rule=self).reshape(grid)


MaskRule = Annotated[Tube | Random | Frame | Cube | BlockTube, Field(discriminator="kind"), ByKind]
"""What the encoder does not see."""

UNEVEN: Final = (Cube, BlockTube)
"""Rules that hide another number of tokens in each clip."""

DecodeRule = Annotated[All | RunningCell | FrameDecode | RandomDecode, Field(discriminator="kind"), ByKind]
"""What the decoder predicts."""

LossOn = Literal["hidden", "decoded"]
"""Which predicted tokens enter the loss: those that the encoder did not see, or all."""


def scored(
    hidden: Bool[np.ndarray, "t h w"], decoded: Bool[np.ndarray, "t h w"], loss_on: LossOn
) -> Bool[np.ndarray, "t h w"]:
    """Tokens that enter the loss. "decoded" is the ablation of VideoMAE V2: the encoder has seen some of them."""
    return decoded.copy() if loss_on == "decoded" else hidden & decoded


def _pick(
    places: int,
    rng: np.random.Generator,
    *,
    rule: Tube | Random | Frame | FrameDecode | RandomDecode,
    count: int | None = None,
) -> Bool[np.ndarray, " places"]:
    """int(ratio * places) of them True, or `count`, at random."""
    count = int(rule.ratio * places) if count is None else count
    if not 0 < count < places:
        what = "nothing" if count == 0 else "everything"
        does = "decode" if isinstance(rule, FrameDecode | RandomDecode) else "mask"
        verb = "leaves out" if does == "decode" else "hides"
        raise ValueError(
            f"{does} {rule.kind}: ratio {rule.ratio} of {places} places {verb} {what}; choose another ratio"
        )
    hidden = np.zeros(places, dtype=np.bool_)
    hidden[rng.permutation(places)[:count]] = True
    return hidden


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
    rule: Cube | BlockTube,
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
