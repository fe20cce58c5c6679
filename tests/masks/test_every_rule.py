"""What holds for every mask rule and every decode rule there is: counts, shapes, draws by the seed alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tubelet.masks import DecodeRule, MaskRule, MaskRules, Motion, Tube, choose_decoded, draw_mask
from tubelet.spec import kinds_of
from tubelet.types import Cube as TokenCube
from tubelet.types import Grid, Mask

MASKS: list[Any] = [rule() for rule in kinds_of(MaskRule).values()]
DECODES: list[Any] = [*(rule() for rule in kinds_of(DecodeRule).values()), Motion(random=0.3)]
GRID, TOKEN = Grid(8, 6, 6), TokenCube(2, 4, 4)

every_mask = pytest.mark.parametrize("mask", MASKS, ids=lambda rule: rule.kind)
every_decode = pytest.mark.parametrize("decode", DECODES, ids=str)


def drawn(mask: MaskRule, decode: DecodeRule, seed: int) -> Mask:
    return draw_mask(MaskRules(mask, decode), GRID, np.random.default_rng(seed))


@every_mask
def test_a_mask_hides_some_tokens_and_shows_some_and_follows_the_seed(mask: MaskRule) -> None:
    draws = [mask(GRID, np.random.default_rng(seed)) for seed in range(8)]
    for hidden in draws:
        assert hidden.shape == tuple(GRID)
        assert hidden.dtype == np.bool_
        assert 0 < hidden.sum() < GRID.tokens
    assert np.array_equal(draws[3], mask(GRID, np.random.default_rng(3)))
    assert len({int(hidden.sum()) for hidden in draws}) == 1 or mask.uneven
    draws[0][:] = False  # a draw is the caller's own
    assert mask(GRID, np.random.default_rng(0)).any()


@every_mask
@every_decode
def test_a_decode_rule_predicts_as_many_as_it_says_before(mask: MaskRule, decode: DecodeRule) -> None:
    for seed in range(4):
        one = drawn(mask, decode, seed)
        count = decode.count(GRID, int(one.hidden.sum()))
        assert one.decoded.shape == (1, *GRID)
        assert int(one.decoded.sum()) == count > 0
        video = torch.randint(0, 256, (1, 3, 16, 24, 24), dtype=torch.uint8)
        chosen = choose_decoded(decode, one, video, TOKEN)
        assert int(chosen.decoded.sum()) == count
        assert int(chosen.scored.sum()) == int(one.scored.sum()) > 0
        assert torch.equal(chosen.hidden, one.hidden)
        assert not (chosen.scored & ~chosen.hidden).any()


@every_decode
def test_the_same_seed_predicts_the_same_tokens(decode: DecodeRule) -> None:
    once, again = (drawn(Tube(ratio=0.5), decode, 5) for _ in range(2))
    assert torch.equal(once.stacked(), again.stacked())


@every_decode
def test_wanted_tokens_are_chosen_without_asking_the_device(decode: DecodeRule) -> None:
    """On the meta device there is no value to ask for."""
    split = drawn(Tube(ratio=0.5), decode, 0).split()
    there = split.to(torch.device("meta"))
    chosen = decode.choose_wanted(there, torch.empty(1, 3, 16, 24, 24, dtype=torch.uint8, device="meta"), TOKEN)
    assert chosen.wanted.shape == split.wanted.shape
