"""Shifted windows of a token grid: which tokens attend to which, in space and time (arXiv:2106.13230, section 3.1).

All of it follows from the sizes of grid and window: indices and masks are made once for a grid, and every pass only
reads them. Shape letters: S places in all windows, padding among them; L places in a window; G windows' groups.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tubelet.nn.constants import register_constants
from tubelet.types import Grid

Step = tuple[int, int, int]
WindowRule = Literal["clamped", "released", "released_image"]
"""What happens where a grid is smaller than a window; see `GridWindows`."""
NO_SHIFT: Final[Step] = (0, 0, 0)
NO_MASK: Final = b""
ELSEWHERE: Final = -100.0  # authors: added to logits of keys that lie elsewhere in the grid


class Partition(NamedTuple):
    """Tokens of a grid put into windows.

    Windows that share a mask lie side by side: `counts[0]` windows without one, `counts[i]` under `masks[i - 1]`.
    """

    order: Int[Tensor, " S"]
    """The token in each place, window after window; the number of tokens where the place is padding."""
    places: Int[Tensor, " N"]
    """The place of each token."""
    rows: Int[Tensor, "L L"]
    """Row of a table of relative positions, for each query and key."""
    masks: Float[Tensor, "G L L"]
    """What is added to logits: 0, or `ELSEWHERE` where query and key are neighbours by the shift alone."""
    counts: tuple[int, ...]


def into_windows(tokens: Float[Tensor, "B N D"], partition: Partition) -> Float[Tensor, "B S D"]:
    """Window after window; padding is rows of zeros."""
    return _reordered(tokens, partition.order, partition.places)


def out_of_windows(rows: Float[Tensor, "B S D"], partition: Partition) -> Float[Tensor, "B N D"]:
    """The tokens in raster order again; what stands in padding is left out."""
    return _reordered(rows, partition.places, partition.order)


def _reordered(rows: Tensor, forth: Tensor, back: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return _taken(rows, forth)
    moved: Tensor = _Reorder.apply(rows, forth, back)  # type: ignore[no-untyped-call]
    return moved


def _taken(rows: Tensor, index: Tensor) -> Tensor:
    if len(index) > rows.shape[1]:  # then some are padding, and look one past the end
        rows = F.pad(rows, (0, 0, 0, 1))
    return rows.index_select(1, index)


class _Reorder(torch.autograd.Function):
    """No row is taken twice, so the gradient is a reordering too: quicker than adding up rows by their index."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, forth: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return _taken(rows, forth)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (back,) = ctx.saved_tensors
        return _taken(gradients[0], back), None, None


def table_rows(window: Step) -> int:
    """How many distances there are within a window, on all axes together."""
    return math.prod(2 * side - 1 for side in window)


def stretch_table(table: Float[Tensor, "R heads"], before: Step, after: Step) -> Float[Tensor, "M heads"]:
    """A table of relative positions for windows of a different size: trilinear (BEVT, arXiv:2112.01529, for SSv2)."""
    if before == after:
        return table
    old, new = ([2 * side - 1 for side in window] for window in (before, after))
    volume = table.T.unflatten(1, old).unsqueeze(0).double()
    stretched: Tensor = F.interpolate(volume, size=new, mode="trilinear", align_corners=False)
    return stretched[0].flatten(1).T.to(table.dtype).contiguous()


class GridWindows(nn.Module):
    """The two partitions of one grid: `plain`, and `shifted` by half a window.

    A table of relative positions belongs to windows of `window` tokens. On an axis where the grid is no longer than
    that, "clamped" makes the window as long as the grid, does not shift, and reads the distances that are there.
    "released" is what BEVT's and Video Swin's code does: the same, but the rows of a window that is clamped down or
    across are those of the first places of a whole one, wherever these lie. "released_image" is what BEVT's code does
    with an image, a grid of one frame: windows are never clamped down or across, every second block is shifted, and the
    mask of shifted windows is in the plain ones too. ValueError where such windows do not divide the grid.
    """

    rows: Tensor

    def __init__(self, grid: Grid, window: Step, rule: WindowRule) -> None:
        super().__init__()
        self.grid, self.window, self.rule = grid, window, rule
        plain, shifted = layouts(grid, window, rule)
        self._layouts = {"plain": plain} if plain == shifted else {"plain": plain, "shifted": shifted}
        self._counts = {name: _plan(grid, layout).counts for name, layout in self._layouts.items()}
        register_constants(self)

    def constants(self) -> dict[str, Tensor]:
        """`rows`, and order, places and masks of each partition."""
        found = {"rows": torch.tensor(_rows(self._layouts["plain"].window, self.window, self.rule))}
        for name, layout in self._layouts.items():
            plan = _plan(self.grid, layout)
            found[f"{name}_order"] = torch.tensor(plan.order)
            found[f"{name}_places"] = torch.tensor(plan.places)
            found[f"{name}_masks"] = torch.tensor(plan.masks)
        return found

    def partition(self, block: int) -> Partition:
        """What the block of this number in its stage attends in: every second one in shifted windows."""
        name = "shifted" if block % 2 and "shifted" in self._layouts else "plain"
        order, places, masks = (self.get_buffer(f"{name}_{part}") for part in ("order", "places", "masks"))
        return Partition(order, places, self.rows, masks, self._counts[name])


@dataclass(frozen=True)
class Layout:
    """How a grid is cut: sides of a window, how far the grid is rolled, and the roll that masks are made for."""

    window: Step
    shift: Step
    masked: Step


def layouts(grid: Grid, window: Step, rule: WindowRule) -> tuple[Layout, Layout]:
    """Plain and shifted; ValueError as `GridWindows`."""
    if rule == "released_image":
        if grid.t != 1 or grid.h % window[1] or grid.w % window[2]:
            raise ValueError(
                f"released windows of {window[1]} x {window[2]} do not divide images of {grid.h} x {grid.w} tokens; "
                'take another clip.size, or model.encoder.window_rule "clamped"'
            )
        flat, shift = (1, window[1], window[2]), (0, window[1] // 2, window[2] // 2)
        return Layout(flat, NO_SHIFT, shift), Layout(flat, shift, shift)
    t, h, w = (min(side, most) for side, most in zip(grid, window, strict=True))
    a, b, c = (0 if side <= most else most // 2 for side, most in zip(grid, window, strict=True))
    return Layout((t, h, w), NO_SHIFT, NO_SHIFT), Layout((t, h, w), (a, b, c), (a, b, c))


@dataclass(frozen=True)
class _Plan:
    """The numbers of a `Partition`."""

    order: NDArray[np.int64]
    places: NDArray[np.int64]
    masks: NDArray[np.float32]
    counts: tuple[int, ...]


def _plan(grid: Grid, layout: Layout) -> _Plan:
    sides = zip(grid, layout.window, strict=True)
    padded = tuple(-(-side // most) * most for side, most in sides)
    order = _cut(_rolled_tokens(grid, padded, layout.shift), layout.window)
    regions = _cut(_regions(padded, layout.masked), layout.window)
    groups: dict[bytes, list[int]] = {NO_MASK: []}  # of windows without a mask, which come first
    for number, region in enumerate(regions):
        key = region.tobytes() if (region != region[0]).any() else NO_MASK
        groups.setdefault(key, []).append(number)
    order = order[[number for members in groups.values() for number in members]].ravel()
    tokens = np.flatnonzero(order < grid.tokens)
    places = np.empty(grid.tokens, np.int64)
    places[order[tokens]] = tokens
    masked = [regions[members[0]] for key, members in groups.items() if key]
    apart = [np.where(region[:, None] != region[None], np.float32(ELSEWHERE), np.float32(0)) for region in masked]
    length = math.prod(layout.window)
    masks = np.stack(apart) if apart else np.zeros((0, length, length), np.float32)
    return _Plan(order, places, masks, tuple(len(members) for members in groups.values()))


def _rolled_tokens(grid: Grid, padded: tuple[int, ...], shift: Step) -> NDArray[np.int64]:
    """The token that lies in each place once the padded grid is rolled back by `shift`."""
    tokens = np.full(padded, grid.tokens, np.int64)
    tokens[: grid.t, : grid.h, : grid.w] = np.arange(grid.tokens).reshape(grid)
    return np.roll(tokens, tuple(-side for side in shift), axis=(0, 1, 2))


def _regions(padded: tuple[int, ...], shift: Step) -> NDArray[np.int8]:
    """Which places were rolled in from the other end, axis by axis."""
    regions = np.zeros(padded, np.int8)
    for axis, (side, rolled) in enumerate(zip(padded, shift, strict=True)):
        far = np.arange(side) >= side - rolled
        regions += np.int8(2**axis) * far.reshape([-1 if other == axis else 1 for other in range(3)]).astype(np.int8)
    return regions


def _cut(volume: NDArray[Any], window: Step) -> NDArray[Any]:
    """[windows, places]: raster order of windows, and within each."""
    t, h, w = window
    return rearrange(volume, "(a t) (b h) (c w) -> (a b c) (t h w)", t=t, h=h, w=w)


def _rows(clamped: Step, window: Step, rule: WindowRule) -> NDArray[np.int64]:
    """[L,L]: the row of a query that lies farther along an axis is higher; the last axis counts by one."""
    inside = clamped if rule == "clamped" else window
    places = np.array(list(product(*map(range, inside))), np.int64)[: math.prod(clamped)]
    rows = np.zeros((len(places), len(places)), np.int64)
    for axis, side in enumerate(window):
        rows = rows * (2 * side - 1) + places[:, None, axis] - places[None, :, axis] + side - 1
    return rows
