"""Draws follow from their names only."""

import torch

from tubelet.rng import generator, step_rng


def test_a_draw_follows_from_its_names() -> None:
    assert generator(1, 2, 3).integers(1000, size=5).tolist() == generator(1, 2, 3).integers(1000, size=5).tolist()
    assert generator(1, 2, 3).integers(1000, size=5).tolist() != generator(1, 2, 4).integers(1000, size=5).tolist()


def test_a_steps_draw_neither_sees_nor_moves_the_state_outside() -> None:
    torch.manual_seed(7)
    with step_rng(0, 5):
        first = torch.rand(3)
    outside = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(3), outside)
    with step_rng(0, 5):
        assert torch.equal(torch.rand(3), first)
    with step_rng(0, 6):
        assert not torch.equal(torch.rand(3), first)
