"""Mask rules hide what they say, as many as the authors hide, and refuse what would hide nothing or all."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from tubelet.masks import All, Frame, MaskRule, Random, Tube
from tubelet.types import Grid

RULES = [Tube(), Random(), Frame()]


def draw(rule: Tube | Random | Frame, grid: Grid, seed: int = 0) -> np.ndarray:
    return rule(grid, np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("ratio", "grid", "hidden"),
    [(0.9, Grid(8, 14, 14), 1408), (0.75, Grid(8, 14, 14), 1176), (0.9, Grid(8, 16, 16), 1840)],
)
def test_tube_counts_are_those_of_the_papers(ratio: float, grid: Grid, hidden: int) -> None:
    assert draw(Tube(ratio=ratio), grid).sum() == hidden


def test_tube_hides_the_same_place_in_every_frame() -> None:
    hidden = draw(Tube(ratio=0.5), Grid(4, 3, 5))
    assert (hidden == hidden[:1]).all()
    assert hidden[0].sum() == 7


def test_random_hides_different_places_in_different_frames() -> None:
    hidden = draw(Random(ratio=0.5), Grid(4, 4, 4))
    assert hidden.sum() == 32
    assert (hidden != hidden[:1]).any()


def test_frame_hides_whole_time_steps() -> None:
    hidden = draw(Frame(), Grid(8, 3, 3))
    assert sorted(hidden.reshape(8, -1).mean(1).tolist()) == [0.0] + [1.0] * 7


@given(st.sampled_from(["tube", "random", "frame"]), st.floats(0.05, 0.95), st.integers(2, 6), st.integers(2, 6))
@settings(max_examples=60, deadline=None)
def test_every_draw_hides_equally_many(kind: str, ratio: float, t: int, side: int) -> None:
    rule: Tube | Random | Frame = TypeAdapter(MaskRule).validate_python({"kind": kind, "ratio": ratio})
    grid = Grid(t, side, side)
    places = {"tube": side * side, "random": grid.tokens, "frame": t}[kind]
    if int(ratio * places) == 0:
        with pytest.raises(ValueError, match="hides nothing"):
            draw(rule, grid)
        return
    counts = {int(draw(rule, grid, seed).sum()) for seed in range(4)}
    assert counts == {int(ratio * places) * grid.tokens // places}


def test_all_places_are_hidden_equally_often() -> None:
    mean = np.mean([draw(Tube(ratio=0.5), Grid(1, 4, 4), seed) for seed in range(400)], axis=0)
    assert np.abs(mean - 0.5).max() < 0.12


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
def test_same_seed_same_mask(rule: Tube | Random | Frame) -> None:
    grid = Grid(8, 8, 8)
    assert np.array_equal(draw(rule, grid, 3), draw(rule, grid, 3))
    assert not np.array_equal(draw(rule, grid, 3), draw(rule, grid, 4))


@pytest.mark.parametrize("rule", [Tube(ratio=0.2), Frame(ratio=0.4), Random(ratio=0.1)], ids=lambda rule: rule.kind)
def test_hiding_nothing_is_an_error(rule: Tube | Random | Frame) -> None:
    with pytest.raises(ValueError, match=rf"mask {rule.kind}: ratio {rule.ratio} of \d+ places hides nothing"):
        draw(rule, Grid(2, 2, 2))


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.1, float("nan")])
def test_ratio_is_a_share(ratio: float) -> None:
    with pytest.raises(ValidationError):
        Tube(ratio=ratio)


def test_a_rule_is_named_by_its_kind_alone() -> None:
    assert TypeAdapter(MaskRule).validate_python("frame") == Frame()


def test_all_decodes_what_is_hidden() -> None:
    hidden = draw(Tube(), Grid(2, 4, 4))
    decoded = All()(Grid(2, 4, 4), hidden, np.random.default_rng(0))
    assert np.array_equal(decoded, hidden)
    assert decoded is not hidden
