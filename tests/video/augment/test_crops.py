"""Crops: boxes inside the frame, the right pixels, the size that was asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tubelet.rng import generator
from tubelet.video.augment import crops
from tubelet.video.augment.crops import CentreCrop, Crop, MultiScaleCrop, RandomResizedCrop

CROPS: list[Crop] = [
    MultiScaleCrop(),
    MultiScaleCrop(interpolation="bicubic"),
    RandomResizedCrop(),
    RandomResizedCrop(scale=(0.5, 1.0), ratio=(1.0, 1.0)),
    CentreCrop(),
]


def ramp(frames: int, height: int, width: int) -> np.ndarray:
    """Red grows to the right, green downwards, blue in time."""
    out = np.zeros((frames, height, width, 3), dtype=np.uint8)
    out[..., 0] = np.arange(width)
    out[..., 1] = np.arange(height)[:, None]
    out[..., 2] = np.arange(frames)[:, None, None] * 10
    return out


@pytest.mark.parametrize("crop", CROPS, ids=repr)
@pytest.mark.parametrize(("height", "width"), [(40, 60), (60, 40), (32, 32), (31, 200), (200, 7), (1, 1)])
def test_any_frame_size_gives_a_square_of_the_size(crop: Crop, height: int, width: int) -> None:
    clip = crops.as_tensor(ramp(3, height, width))
    for draw in range(20):
        out = crop(clip, 32, generator(draw))
        assert out.shape == (3, 3, 32, 32)
        assert out.dtype == torch.uint8
        assert (out[:, 2].flatten(1) == torch.tensor([[0], [10], [20]])).all()


def test_all_frames_are_cut_alike() -> None:
    still = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 48, 64, 3), dtype=np.uint8), 4, axis=0)
    for crop in CROPS:
        out = crop(crops.as_tensor(still), 24, generator(1))
        assert (out == out[:1]).all()


def test_centre_crop_and_one_test_crop_are_the_middle() -> None:
    frames = ramp(2, 32, 64)
    for clip in (
        CentreCrop()(crops.as_tensor(frames), 32, generator(0)),
        crops.test_crops(frames, 32, 1)[0].transpose(0, 1),
    ):
        assert clip[0, 0, 0].tolist() == list(range(16, 48))


def test_three_test_crops_are_left_middle_right() -> None:
    wide, tall = crops.test_crops(ramp(2, 32, 64), 32, 3), crops.test_crops(ramp(2, 64, 32), 32, 3)
    assert wide.shape == tall.shape == (3, 3, 2, 32, 32)
    assert wide[:, 0, 0, 0, 0].tolist() == tall[:, 1, 0, 0, 0].tolist() == [0, 16, 32]
    assert wide[:, 2, 1, 0, 0].tolist() == [10, 10, 10]


def test_resizing_keeps_a_flat_clip_and_averages_when_it_shrinks() -> None:
    flat = torch.full((2, 3, 30, 40), 77, dtype=torch.uint8)
    assert (crops.resize(flat, (13, 57), "bicubic") == 77).all()
    checks = torch.tensor([[0, 200], [200, 0]], dtype=torch.uint8).repeat(32, 32).expand(1, 3, 64, 64)
    small = crops.resize(checks, (8, 8), "bilinear")
    assert (small[..., 2:-2, 2:-2].float() - 100).abs().max() <= 2


def test_random_resized_crop_draws_areas_and_ratios_in_their_ranges() -> None:
    crop = RandomResizedCrop(scale=(0.2, 0.5))
    boxes = [crop.box(100, 150, generator(draw)) for draw in range(300)]
    shares = [height * width / 15000 for _, _, height, width in boxes]
    assert 0.19 < min(shares) < 0.25
    assert 0.45 < max(shares) < 0.51
    assert all(0.73 < width / height < 1.36 for _, _, height, width in boxes)
    assert len({box[:2] for box in boxes}) > 200


def test_random_resized_crop_falls_back_to_the_largest_allowed_centre() -> None:
    assert RandomResizedCrop(scale=(1.0, 1.0)).box(100, 1000, generator(0)) == (0, 433, 100, 133)


def test_multi_scale_sides_never_leave_the_frame() -> None:
    assert max(max(size) for size in MultiScaleCrop().sizes(31, 31, 32)) == 31
    assert (224, 224) in MultiScaleCrop().sizes(225, 300, 224)
