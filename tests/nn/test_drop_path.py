"""Draws per clip: what several processes draw for their clips is what one process draws for all."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tubelet.nn.drop_path import Dropout, DropPath
from tubelet.rng import draw_rows, rows_of, step_rng


def test_dropout_is_that_of_torch() -> None:
    rows = torch.randn(6, 24)
    with step_rng(0, 1):
        theirs = nn.Dropout(0.3)(rows)
    with step_rng(0, 1):
        ours = Dropout(0.3)(rows)
    assert ours.equal(theirs)
    assert Dropout(0.3).eval()(rows) is rows
    assert Dropout(0.0)(rows) is rows


@pytest.mark.parametrize("places", [[0, 1, 2], [4, 1], [5], [0, 1, 2, 3, 4, 5]])
def test_rows_of_a_batch_get_the_draws_of_the_whole_batch(places: list[int]) -> None:
    own = torch.tensor(places)
    for drop, values in ((DropPath(0.5), torch.randn(6, 3, 4)), (Dropout(0.5), torch.randn(6, 4))):
        with step_rng(0, 1):
            whole = [drop(values), drop(values)]
        with step_rng(0, 1), rows_of({"video": own}, {"video": 6}):
            parts = [drop(values[own]), drop(values[own])]
        assert not whole[0].equal(whole[1])
        for one, part in zip(whole, parts, strict=True):
            assert part.equal(one[own])


def test_rows_are_forgotten_on_leaving_and_must_fit() -> None:
    with rows_of({"video": torch.tensor([1, 2])}, {"video": 4}), pytest.raises(AssertionError, match="per clip"):
        draw_rows(3, torch.zeros)
    assert draw_rows(3, torch.zeros).shape == (3,)
