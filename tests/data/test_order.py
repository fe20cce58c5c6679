"""Which videos a step takes."""

from __future__ import annotations

import numpy as np
import pytest

from tubelet.data.order import StepSampler, order, rank_rows, steps_per_epoch


def test_an_order_is_a_permutation_that_follows_from_seed_and_epoch() -> None:
    assert sorted(order(50, seed=3, epoch=2)) == list(range(50))
    assert np.array_equal(order(50, seed=3, epoch=2), order(50, seed=3, epoch=2))
    assert not np.array_equal(order(50, seed=3, epoch=2), order(50, seed=3, epoch=3))
    assert not np.array_equal(order(50, seed=3, epoch=2), order(50, seed=4, epoch=2))


def test_a_step_is_the_same_from_wherever_the_sampler_starts() -> None:
    whole = list(StepSampler(11, batch_size=4, seed=0, start=0, stop=9))
    assert len(whole) == 9
    for start in range(9):
        assert list(StepSampler(11, batch_size=4, seed=0, start=start, stop=9)) == whole[start:]


def test_an_epoch_takes_no_video_twice_and_leaves_out_the_rest() -> None:
    steps = list(StepSampler(11, batch_size=4, seed=0, start=0, stop=4))
    for epoch in (0, 1):
        keys = steps[2 * epoch] + steps[2 * epoch + 1]
        assert {key[0] for key in keys} == {epoch}
        assert len({index for _, index in keys}) == 8


@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_ranks_share_each_step_of_the_single_process(world: int) -> None:
    whole = list(StepSampler(20, batch_size=6, seed=1, start=2, stop=7))
    ranks = [StepSampler(20, batch_size=6, seed=1, start=2, stop=7, rank=rank, world=world) for rank in range(world)]
    for step, (batch, *parts) in enumerate(zip(whole, *ranks, strict=True), start=2):
        assert sorted(key for part in parts for key in part) == sorted(batch)
        for part, sampler in zip(parts, ranks, strict=True):
            assert part == [batch[row] for row in sampler.rows]
            assert [index for _, index in batch] == list(sampler.batch(step))


@pytest.mark.parametrize(("size", "world"), [(8, 1), (8, 2), (12, 3), (16, 4)])
def test_a_rank_with_evenly_many_videos_holds_each_with_its_mirror_image(size: int, world: int) -> None:
    for rank in range(world):
        rows = rank_rows(size, rank=rank, world=world)
        assert list(rows) == sorted(rows)
        assert [size - 1 - row for row in rows] == list(rows[::-1])


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"set run\.batch_size=3 or less"):
        steps_per_epoch(3, 4)
    with pytest.raises(ValueError, match="not a multiple of the 3 processes"):
        StepSampler(20, batch_size=4, seed=0, start=0, stop=1, world=3)
