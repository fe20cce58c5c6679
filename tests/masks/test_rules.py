"""Each rule hides or predicts what it says, as many as the authors, and refuses what would hide nothing or all."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from tubelet.masks import (
    All,
    BlockTube,
    CubeMask,
    DecodeRule,
    Frame,
    FrameDecode,
    MaskRule,
    Random,
    RandomDecode,
    RunningCell,
    Tube,
    scored,
)
from tubelet.types import Grid

RULES = [Tube(), Random(), Frame()]


def draw(rule: MaskRule, grid: Grid, seed: int = 0) -> np.ndarray:
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
    rule: MaskRule = TypeAdapter(MaskRule).validate_python({"kind": kind, "ratio": ratio})
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


def test_blocks_are_drawn_on_cells_and_repeated_to_tokens() -> None:
    hidden = draw(CubeMask(), Grid(8, 14, 14))
    cells = hidden.reshape(8, 7, 2, 7, 2)
    assert (cells == cells[:, :, :1, :, :1]).all()
    assert 140 <= hidden.sum() / 4 <= 157
    two = draw(CubeMask(cell=(2, 1, 1)), Grid(4, 6, 6)).reshape(2, 2, 6, 6)
    assert (two[:, 0] == two[:, 1]).all()


def test_a_block_tube_hides_the_same_place_in_every_frame() -> None:
    hidden = draw(BlockTube(), Grid(8, 14, 14))
    assert (hidden == hidden[:1]).all()
    assert 17 <= hidden[0].sum() / 4 <= 20


@pytest.mark.parametrize("ratio", [0.2, 0.4, 0.6, 0.8])
@pytest.mark.parametrize("kind", [CubeMask, BlockTube], ids=["cube", "block_tube"])
def test_blocks_hide_another_number_each_time_and_never_more_than_asked(
    kind: type[CubeMask | BlockTube], ratio: float
) -> None:
    counts = [int(draw(kind(ratio=ratio), Grid(8, 14, 14), seed).sum()) for seed in range(60)]
    most = 4 * round(ratio * 392) if kind is CubeMask else 8 * 4 * round(ratio * 49)
    assert max(counts) == most
    assert len(set(counts)) > 1 or (kind is BlockTube and ratio == 0.2)  # whose blocks of 2 cells fill it up
    assert np.mean(counts) > 0.95 * most


@pytest.mark.parametrize(("ratio", "steps"), [(0.2, 2), (0.4, 3), (0.6, 5), (0.8, 6)])
def test_frames_of_maskfeat_are_the_nearest_number(ratio: float, steps: int) -> None:
    assert draw(Frame(ratio=ratio, count="nearest"), Grid(8, 2, 2)).sum() == 4 * steps


@pytest.mark.parametrize(
    ("grid", "says"),
    [
        (Grid(2, 2, 2), "2 x 1 x 1 cells hides nothing"),
        (Grid(2, 3, 4), "2 x 3 x 4 tokens have no whole cells of 1 x 2 x 2"),
    ],
)
@pytest.mark.parametrize("kind", [CubeMask, BlockTube], ids=["cube", "block_tube"])
def test_a_grid_too_small_for_blocks_is_refused(kind: type[CubeMask | BlockTube], grid: Grid, says: str) -> None:
    with pytest.raises(ValueError, match="change mask") as refused:
        draw(kind(), grid)
    assert says.replace("2 x 1 x 1", "1 x 1 x 1" if kind is BlockTube else "2 x 1 x 1") in str(refused.value)


@pytest.mark.parametrize(
    ("rule", "grid", "seed"),
    [
        (BlockTube(ratio=0.75, cell=(1, 1, 1)), Grid(1, 7, 7), 7702),
        (BlockTube(ratio=0.75, cell=(1, 1, 1)), Grid(1, 7, 7), 12071),
        (CubeMask(ratio=0.1, cell=(1, 1, 1)), Grid(8, 7, 7), 22474),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_a_clip_whose_first_tries_all_miss_gets_its_blocks(rule: CubeMask | BlockTube, grid: Grid, seed: int) -> None:
    """With these seeds the first 10 (100) tries fit nowhere: a run that asks them must not end there, clip by clip."""
    hidden = draw(rule, grid, seed)
    assert 0 < hidden.sum() <= round(rule.ratio * grid.tokens)


@pytest.mark.parametrize("rule", [CubeMask(), BlockTube()], ids=lambda rule: rule.kind)
def test_same_seed_same_blocks(rule: CubeMask | BlockTube) -> None:
    grid = Grid(8, 14, 14)
    assert np.array_equal(draw(rule, grid, 3), draw(rule, grid, 3))
    assert not np.array_equal(draw(rule, grid, 3), draw(rule, grid, 4))


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


DECODE = [RunningCell(), FrameDecode(), RandomDecode()]


def decode(
    rule: RunningCell | FrameDecode | RandomDecode, grid: Grid, hidden: np.ndarray | None = None, seed: int = 0
) -> np.ndarray:
    nothing = np.zeros(grid, dtype=np.bool_)
    return rule(grid, nothing if hidden is None else hidden, np.random.default_rng(seed))


@pytest.mark.parametrize(("tokens", "rule"), [(Grid(8, 14, 14), Tube(ratio=0.9))])
def test_dual_masking_counts_are_those_of_the_paper(tokens: Grid, rule: Tube) -> None:
    """784 decoded, 704 of them hidden, in every sample."""
    for seed in range(20):
        hidden = draw(rule, tokens, seed)
        decoded = decode(RunningCell(ratio=0.5), tokens, hidden, seed)
        assert decoded.sum() == 784
        assert scored(hidden, decoded, "hidden").sum() == 704
        assert scored(hidden, decoded, "decoded").sum() == 784


@given(
    st.sampled_from([0.25, 0.3, 0.5, 0.6, 0.75, 0.9]),
    st.floats(0.3, 0.95),
    *(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
)
@settings(max_examples=80, deadline=None)
def test_running_cell_counts_agree_in_every_sample(ratio: float, hides: float, t: int, h: int, w: int) -> None:
    """Over four time steps every place is decoded equally often, so each tube has equally many scored tokens."""
    grid = Grid(4 * t, 2 * h, 2 * w)
    if int(hides * grid.h * grid.w) == 0:
        return
    out, counts = int(4 * ratio), set()
    for seed in range(6):
        hidden = draw(Tube(ratio=hides), grid, seed)
        decoded = decode(RunningCell(ratio=ratio), grid, hidden, seed)
        assert (decoded.sum(0) == t * (4 - out)).all()
        counts.add((int(decoded.sum()), int((decoded & hidden).sum())))
    tubes = int(hides * grid.h * grid.w)
    assert counts == {(grid.tokens * (4 - out) // 4, tubes * t * (4 - out))}


def test_running_cell_moves_by_one_place_a_step() -> None:
    cell = RunningCell(ratio=0.5).pattern(Grid(5, 2, 2), 0)
    left_out = [(~step).astype(int).tolist() for step in cell]
    assert left_out[:4] == [[[1, 0], [0, 1]], [[0, 0], [1, 1]], [[0, 1], [1, 0]], [[1, 1], [0, 0]]]
    assert left_out[4] == left_out[0]


def test_all_four_running_cell_patterns_are_drawn() -> None:
    grid = Grid(2, 4, 4)
    patterns = [RunningCell().pattern(grid, start).tobytes() for start in range(4)]
    assert len(set(patterns)) == 4
    drawn = [patterns.index(decode(RunningCell(), grid, seed=seed).tobytes()) for seed in range(400)]
    assert min(np.bincount(drawn, minlength=4)) > 70


def test_frame_and_random_decode_leave_out_their_share() -> None:
    grid = Grid(8, 4, 4)
    steps = decode(FrameDecode(ratio=0.25), grid).reshape(8, -1).mean(1)
    assert sorted(steps.tolist()) == [0.0] * 2 + [1.0] * 6
    assert decode(RandomDecode(ratio=0.25), grid).sum() == 96
    assert decode(RandomDecode(ratio=0.25), grid).std(0).max() > 0


@pytest.mark.parametrize("rule", DECODE, ids=lambda rule: rule.kind)
def test_decode_rules_follow_the_seed(rule: RunningCell | FrameDecode | RandomDecode) -> None:
    grid = Grid(8, 8, 8)
    draws = [decode(rule, grid, seed=seed).tobytes() for seed in range(12)]
    assert draws == [decode(rule, grid, seed=seed).tobytes() for seed in range(12)]
    assert len(set(draws)) > 2


def test_decode_rules_refuse_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="3 x 4 tokens have no whole cells of 2 x 2"):
        decode(RunningCell(), Grid(4, 3, 4))
    with pytest.raises(ValidationError, match="leaves out none"):
        RunningCell(ratio=0.2)
    with pytest.raises(ValueError, match=r"decode frame: ratio 0.1 of 4 places leaves out nothing"):
        decode(FrameDecode(ratio=0.1), Grid(4, 4, 4))


def test_a_decode_rule_is_named_by_its_kind_alone() -> None:
    assert TypeAdapter(DecodeRule).validate_python("running_cell") == RunningCell()


def test_a_largest_block_bounds_what_one_block_hides() -> None:
    """So more blocks fill the same ratio, and more edges run between hidden and seen cells."""
    grid = Grid(1, 14, 14)
    small, plain = (BlockTube(ratio=0.4, cell=(1, 1, 1), smallest=4, largest=most) for most in (9, None))
    hidden = [[rule(grid, np.random.default_rng(seed)) for seed in range(40)] for rule in (small, plain)]
    edges = [np.mean([np.abs(np.diff(one.astype(int), axis=2)).sum() for one in many]) for many in hidden]
    assert edges[0] > 1.3 * edges[1]
    assert max(one.sum() for one in hidden[0]) <= round(0.4 * 196)
