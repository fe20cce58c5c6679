"""Block masks have the statistics of MaskFeat's released generators, over as many draws as theirs.

A golden file has means, extremes and probabilities over 2,000 draws, and no draws. Both sides are samples, so the
tolerances are those of a difference of two: 5 of its standard errors for means; 0.03 for the smallest ratio and for
shares of a histogram; 0.07 for the probability of a place (4.5 of its standard errors at p = 0.5), 2 % for the lengths
of runs, which are not independent of each other. The largest ratio is the same number: the count that is aimed at.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
from jaxtyping import Bool

from golden import load_json
from tubelet.masks import BlockTube, CubeMask, Frame
from tubelet.types import Grid

CASE = "case12_slowfast_mask_stats"
WHOLE = (1, 1, 1)
NEAR_ERRORS, NEAR_SHARE, NEAR_PLACE, NEAR_RUN = 5.0, 0.03, 0.07, 0.02
KINDS = ("cube", "tube", "frames", "image")


def kind_of(row: dict[str, Any]) -> str:
    args = row["args"]
    if row["entry"].endswith("MaskingGenerator"):
        return "image"
    return "tube" if args.get("MASK_TUBE") else "frames" if args.get("MASK_FRAMES") else "cube"


def rule_of(row: dict[str, Any]) -> CubeMask | BlockTube | Frame:
    args, kind = row["args"], kind_of(row)
    if kind == "image":
        ratio = args["num_masking_patches"] / math.prod(args["mask_window_size"])
        return BlockTube(ratio=ratio, cell=WHOLE, smallest=args["min_num_patches"], largest=args["max_num_patches"])
    ratio = args["MASK_RATIO"]
    if kind == "frames":
        return Frame(ratio=ratio, count="nearest")
    return BlockTube(ratio=ratio, cell=WHOLE) if kind == "tube" else CubeMask(ratio=ratio, cell=WHOLE)


def rows(kind: str) -> list[dict[str, Any]]:
    return [row for row in load_json(CASE)["settings"].values() if kind_of(row) == kind]


@cache
def drawn(rule: CubeMask | BlockTube | Frame, grid: Grid, draws: int) -> Bool[np.ndarray, "draws t h w"]:
    rng = np.random.default_rng(12)
    return np.stack([rule(grid, rng) for _ in range(draws)])


def masks(row: dict[str, Any]) -> Bool[np.ndarray, "draws t h w"]:
    return drawn(rule_of(row), Grid(*row["grid"]), row["draws"])


def near_mean(ours: np.ndarray, theirs: dict[str, float]) -> None:
    allowed = NEAR_ERRORS * math.hypot(theirs["standard_error"], ours.std() / math.sqrt(ours.size))
    assert abs(ours.mean() - theirs["mean"]) <= allowed + 1e-4, (ours.mean(), theirs, allowed)


def runs(hidden: np.ndarray) -> np.ndarray:
    """Lengths of the runs of True along the last axis."""
    lines = np.pad(hidden.reshape(-1, hidden.shape[-1]), ((0, 0), (1, 1))).astype(np.int8)
    edges = np.diff(lines, axis=1)
    return np.nonzero(edges == -1)[1] - np.nonzero(edges == 1)[1]


@pytest.mark.parametrize("kind", KINDS)
def test_how_many_are_hidden(kind: str) -> None:
    for row in rows(kind):
        ratio, theirs = masks(row).mean((1, 2, 3)), row["masked_ratio"]
        near_mean(ratio, theirs)
        assert ratio.max() == pytest.approx(theirs["max"], abs=1e-9), row["args"]
        assert ratio.min() == pytest.approx(theirs["min"], abs=NEAR_SHARE), row["args"]
        counts = masks(row).sum((1, 2, 3))
        for share, count in row["masked_count_quantiles"].items():
            found = float(np.quantile(counts, float(share)))
            assert abs(found - count) <= max(1.0, 0.2 * row["masked_count"]["std"]) or share in ("0.01", "0.05"), share


@pytest.mark.parametrize("kind", KINDS)
def test_where_they_are(kind: str) -> None:
    for row in rows(kind):
        mean = masks(row).mean(0)
        assert np.abs(mean.mean(0) - np.array(row["marginal_probability_hw"])).max() <= NEAR_PLACE
        if "marginal_probability_t" in row:
            assert np.abs(mean.mean((1, 2)) - np.array(row["marginal_probability_t"])).max() <= NEAR_PLACE


@pytest.mark.parametrize("kind", KINDS)
def test_how_far_blocks_reach_across_a_frame(kind: str) -> None:
    for row in rows(kind):
        hidden = masks(row)
        for name, along in (("horizontal", hidden), ("vertical", hidden.swapaxes(2, 3))):
            theirs, found = row[f"{name}_run_length"], runs(along)
            assert found.mean() == pytest.approx(theirs["mean"], rel=NEAR_RUN), name
            assert (found.min(), found.max()) == (theirs["min"], theirs["max"]), name


@pytest.mark.parametrize("kind", ["cube", "tube", "frames"])
def test_how_far_blocks_reach_over_time(kind: str) -> None:
    for row in rows(kind):
        hidden = masks(row)
        assert runs(np.moveaxis(hidden, 1, 3)).mean() == pytest.approx(row["temporal_run_length"]["mean"], rel=NEAR_RUN)
        reached = hidden.any((2, 3)).sum(1)
        near_mean(reached, row["frames_with_any_mask"])
        for steps, count in row["frames_with_any_mask_histogram"].items():
            assert np.mean(reached == int(steps)) == pytest.approx(count / row["draws"], abs=1.5 * NEAR_SHARE), steps
        same = (hidden[:, 1:] == hidden[:, :-1]).mean()
        assert same == pytest.approx(row["same_as_previous_frame_fraction"], rel=NEAR_RUN)
