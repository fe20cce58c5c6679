"""Shifted windows: every token in one place, neighbours that attend, masks, padding, rules, tables of other sizes."""

import pytest
import torch
from torch import Tensor

from tubelet.nn.constants import restore_constants
from tubelet.nn.windows import (
    ELSEWHERE,
    GridWindows,
    Partition,
    Step,
    into_windows,
    out_of_windows,
    stretch_table,
    table_rows,
)
from tubelet.types import Grid

GRIDS = [
    pytest.param(Grid(4, 6, 6), (2, 3, 3), id="divides"),
    pytest.param(Grid(3, 5, 7), (2, 3, 3), id="padded"),
    pytest.param(Grid(2, 2, 8), (4, 3, 2), id="clamped"),
    pytest.param(Grid(1, 8, 8), (8, 4, 4), id="image"),
]


@pytest.mark.parametrize(("grid", "window"), GRIDS)
@pytest.mark.parametrize("block", [0, 1], ids=["plain", "shifted"])
def test_every_token_has_one_place_and_comes_back(grid: Grid, window: Step, block: int) -> None:
    partition = GridWindows(grid, window, "clamped").partition(block)
    tokens = torch.randn(2, grid.tokens, 3, requires_grad=True)
    rows = into_windows(tokens, partition)
    assert rows.shape[1] == sum(partition.counts) * len(partition.rows)
    padding = partition.order == grid.tokens
    assert int(padding.sum()) == rows.shape[1] - grid.tokens
    assert not rows[:, padding].any()
    back = out_of_windows(rows, partition)
    assert torch.equal(back, tokens)
    weight = torch.randn_like(back)
    (back * weight).sum().backward()
    assert tokens.grad is not None
    assert torch.equal(tokens.grad, weight)


@pytest.mark.parametrize(("grid", "window"), GRIDS)
@pytest.mark.parametrize("block", [0, 1], ids=["plain", "shifted"])
def test_gradients_are_those_of_plain_indexing(grid: Grid, window: Step, block: int) -> None:
    partition = GridWindows(grid, window, "clamped").partition(block)
    tokens = torch.randn(2, grid.tokens, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda one: into_windows(one, partition), (tokens,))
    rows = torch.randn(1, len(partition.order), 2, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda one: out_of_windows(one, partition), (rows,))


def attends(partition: Partition, tokens: int) -> Tensor:
    """[N,N]: which tokens see which without a mask between them."""
    seen = torch.zeros(tokens + 1, tokens + 1, dtype=torch.bool)
    windows = partition.order.unflatten(0, (-1, len(partition.rows)))
    first = 0
    for group, count in enumerate(partition.counts):
        allowed = torch.ones_like(partition.rows, dtype=torch.bool)
        if group:
            allowed = partition.masks[group - 1] == 0
        for window in windows[first : first + count]:
            seen[window[:, None], window[None]] |= allowed
        first += count
    return seen[:tokens, :tokens]


@pytest.mark.parametrize("rule", ["clamped", "released"])
def test_shifted_windows_join_neighbours_across_the_cuts_and_no_ends(rule: str) -> None:
    windows = GridWindows(Grid(1, 1, 12), (1, 1, 4), rule)  # type: ignore[arg-type]
    place = torch.arange(12)
    plain, shifted = (attends(windows.partition(block), 12) for block in (0, 1))
    assert torch.equal(plain, place[:, None] // 4 == place[None] // 4)
    cut = (place + 2) // 4
    assert torch.equal(shifted, cut[:, None] == cut[None])


def test_windows_that_share_a_mask_lie_side_by_side() -> None:
    partition = GridWindows(Grid(4, 12, 12), (2, 4, 4), "clamped").partition(1)
    assert sum(partition.counts) == 2 * 3 * 3
    assert partition.counts[0] == 1 * 2 * 2, "without a mask: those that touch no end"
    assert len(partition.counts) == 8
    assert partition.masks.shape == (7, 32, 32)
    assert set(partition.masks.unique().tolist()) == {0.0, ELSEWHERE}


def test_a_grid_that_is_no_longer_than_a_window_is_one_window_and_not_shifted() -> None:
    windows = GridWindows(Grid(8, 7, 7), (8, 7, 7), "clamped")
    assert [windows.partition(block).counts for block in (0, 1)] == [(1,), (1,)]
    assert {name for name, _ in windows.named_buffers()} == {"rows", "plain_order", "plain_places", "plain_masks"}


def test_clamped_windows_read_the_distances_that_are_there() -> None:
    whole, small = GridWindows(Grid(2, 8, 8), (2, 4, 4), "clamped"), GridWindows(Grid(2, 3, 2), (2, 4, 4), "clamped")
    places = [t * 16 + h * 4 + w for t in range(2) for h in range(3) for w in range(2)]
    assert torch.equal(small.rows, whole.rows[places][:, places])
    released = GridWindows(Grid(2, 3, 2), (2, 4, 4), "released")
    assert torch.equal(released.rows, whole.rows[:12, :12]), "authors: the first places, wherever those are"


def test_an_image_reads_the_rows_of_no_distance_in_time() -> None:
    rows = GridWindows(Grid(1, 7, 7), (8, 7, 7), "clamped").rows
    assert rows.unique().tolist() == list(range(7 * 169, 8 * 169))


def test_released_windows_of_an_image_have_a_mask_in_every_block() -> None:
    windows = GridWindows(Grid(1, 4, 4), (8, 4, 4), "released_image")
    plain, shifted = windows.partition(0), windows.partition(1)
    assert plain.counts == shifted.counts == (0, 1)
    assert torch.equal(plain.masks, shifted.masks)
    assert torch.equal(plain.order, torch.arange(16))
    assert not torch.equal(shifted.order, plain.order)


def test_released_windows_that_do_not_divide_an_image_are_refused() -> None:
    with pytest.raises(ValueError, match=r"released windows of 7 x 7 do not divide images of 1[02] x 12 tokens"):
        GridWindows(Grid(1, 10, 12), (8, 7, 7), "released_image")


def test_constants_are_not_saved_and_computed_again() -> None:
    with torch.device("meta"):
        windows = GridWindows(Grid(4, 6, 6), (2, 3, 3), "clamped")
    assert windows.rows.is_meta
    assert not windows.state_dict()
    empty = windows.to_empty(device="cpu")
    restore_constants(empty)
    fresh = GridWindows(Grid(4, 6, 6), (2, 3, 3), "clamped")
    assert all(torch.equal(value, fresh.get_buffer(name)) for name, value in empty.named_buffers())


def test_a_table_is_stretched_in_time() -> None:
    before, after = (8, 7, 7), (16, 7, 7)
    slope = torch.arange(-7.0, 8.0).repeat_interleave(169).unsqueeze(1).expand(-1, 2)
    stretched = stretch_table(slope.contiguous(), before, after)
    assert stretched.shape == (table_rows(after), 2)
    line = stretched[:, 0].unflatten(0, (31, 169))[:, 0]
    assert line[15].abs() < 1e-6
    assert (line.diff() >= 0).all()
    assert torch.equal(stretch_table(slope, before, before), slope)
