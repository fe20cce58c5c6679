"""Frame indices and crops equal to the authors' (case 11), built from each row's own settings."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tubelet.video.augment.crops import MultiScaleCrop, crop_starts
from tubelet.video.sample import Segments, Span, Strided

HERE = Path(__file__).resolve()
REPOSITORY = HERE.parents[2]
PLACES = [
    Path(os.environ.get("TUBELET_GOLDEN") or "nowhere"),
    REPOSITORY.parent / "shared/golden",
    REPOSITORY / "tests/golden",
]

Row = dict[str, Any]


def case(system: str, part: str) -> list[Row]:
    for folder in PLACES:
        path = folder / f"case11_{system}_sampling.json"
        if path.is_file():
            rows: list[Row] = json.loads(path.read_text())[part]["rows"]
            assert rows
            return rows
    pytest.skip(f"no case11_{system}_sampling.json; set TUBELET_GOLDEN")


class Forced(np.random.Generator):
    """Draws the lowest or the highest value of every range, and remembers the ranges."""

    def __init__(self, pick: Callable[[int, int], int]) -> None:
        super().__init__(np.random.PCG64(0))
        self.pick = pick
        self.ranges: list[tuple[int, int]] = []

    def integers(self, low: Any, high: Any = None, size: Any = None, **_: Any) -> Any:  # type: ignore[override]
        low, high = (0, low) if high is None else (low, high)
        self.ranges.append((low, high - 1))
        value = self.pick(low, high - 1)
        return value if size is None else np.full(size, value, dtype=np.int64)


def lowest_and_highest(draw: Callable[[np.random.Generator], Any]) -> tuple[list[int], list[int], list[int] | None]:
    low, high = Forced(min), Forced(max)
    at_min, at_max = draw(low).tolist(), draw(high).tolist()
    assert low.ranges == high.ranges
    return at_min, at_max, list(low.ranges[0]) if low.ranges else None


@pytest.mark.parametrize("system", ["videomae", "videomaev2"])
def test_pretraining_clips(system: str) -> None:
    for row in case(system, "pretrain"):
        sampler = Strided(stride=row["sampling_rate"])
        total, frames = row["frames_in_video"], row["num_frames"]
        at_min, at_max, drawn = lowest_and_highest(
            lambda rng, s=sampler, n=total, f=frames: s.train(n, f, rng)  # type: ignore[misc]
        )
        assert (at_min, at_max, drawn) == (row["indices_at_min"], row["indices_at_max"], row["offset_range"]), row


@pytest.mark.parametrize(("system", "part"), [("videomae", "kinetics_train"), ("videomaev2", "dense_train")])
def test_dense_training_and_validation_clips(system: str, part: str) -> None:
    for row in case(system, part):
        sampler, total, frames = Span(stride=row["sampling_rate"]), row["frames_in_video"], row["clip_len"]
        if row["mode"] == "validation" and system == "videomaev2":
            assert sampler.views(total, frames, 1)[0].tolist() == row["indices_at_min"] == row["indices_at_max"], row
            continue
        at_min, at_max, drawn = lowest_and_highest(
            lambda rng, s=sampler, n=total, f=frames: s.train(n, f, rng)  # type: ignore[misc]
        )
        assert (at_min, at_max, drawn) == (row["indices_at_min"], row["indices_at_max"], row["randint_range"]), row


@pytest.mark.parametrize(("system", "part"), [("videomae", "kinetics_test"), ("videomaev2", "dense_test")])
def test_dense_test_clips(system: str, part: str) -> None:
    for row in case(system, part):
        span, strided = Span(stride=row["sampling_rate"]), Strided(stride=row["sampling_rate"])
        settings = (row["frames_in_video"], row["clip_len"], row["test_num_segment"])
        assert span.views(*settings).tolist() == strided.views(*settings).tolist() == row["clips"], row


@pytest.mark.parametrize(
    ("system", "part", "frames"),
    [("videomae", "ssv2_test", "num_segment"), ("videomaev2", "sparse_test", "num_frames")],
)
def test_sparse_test_clips(system: str, part: str, frames: str) -> None:
    for row in case(system, part):
        if row["test_num_segment"] == 1:
            continue  # ours is the middle of each segment
        clips = Segments().views(row["frames_in_video"], row[frames], row["test_num_segment"])
        assert clips.tolist() == row["clips"], row


def test_sparse_test_clips_from_frame_files() -> None:
    for row in case("videomaev2", "rawframe"):
        if row["mode"] == "test":
            clips = Segments().views(row["frames_in_video"], row["num_segment"], row["test_num_segment"])
            assert (clips + row["start_idx"]).tolist() == row["clips"], row


def test_sparse_training_clips() -> None:
    for row in case("videomae", "ssv2_train"):
        at_min, at_max, drawn = lowest_and_highest(
            lambda rng, r=row: Segments().train(r["frames_in_video"], r["num_segment"], rng)  # type: ignore[misc]
        )
        assert (at_min, at_max, drawn) == (row["indices_at_min"], row["indices_at_max"], row["randint_range"]), row


def test_sparse_training_clips_from_frame_files() -> None:
    """V2 reads SSv2 from frame files; equal to ours except that it pads a video shorter than the clip differently."""
    for row in case("videomaev2", "rawframe"):
        if row["mode"] == "train" and row["frames_in_video"] >= row["num_segment"]:
            at_min, at_max, _ = lowest_and_highest(
                lambda rng, r=row: (
                    Segments().train(r["frames_in_video"], r["num_segment"], rng) + r["start_idx"]  # type: ignore[misc]
                )
            )
            assert (at_min, at_max) == (row["file_numbers_at_min"], row["file_numbers_at_max"]), row


@pytest.mark.parametrize("system", ["videomae", "videomaev2"])
def test_test_crops(system: str) -> None:
    for row in case(system, "spatial_test"):
        size, crop = row["short_side_size"], row["crop"]
        start = crop_starts(max(row["height"], row["width"]), size, crops=row["test_num_crop"])[crop]
        along, across = ("y", "x") if row["height"] > row["width"] else ("x", "y")
        assert row[along] == [start, start + size - 1], row
        assert row[across] == [0, size - 1], row


@pytest.mark.parametrize("system", ["videomae", "videomaev2"])
def test_multi_scale_crops(system: str) -> None:
    for row in case(system, "multi_scale_crop"):
        crop = MultiScaleCrop(scales=tuple(row["scales"]))
        height, width = row["image_h"], row["image_w"]
        sizes = crop.sizes(height, width, row["input_size"])
        assert [[w, h] for h, w in sizes] == row["pairs_wh"], row
        for crop_height, crop_width in sizes:
            offsets = crop.offsets(height - crop_height, width - crop_width)
            assert [[x, y] for y, x in offsets] == row["offsets_wh"][f"{crop_width}x{crop_height}"], row
