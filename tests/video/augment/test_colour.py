"""Colour operations: exact where nothing is to be changed, known values, one rule for all frames of a clip."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tubelet.rng import generator
from tubelet.video.augment import colour
from tubelet.video.augment.colour import ColourJitter
from tubelet.video.augment.randaugment import OPERATIONS, RandAugment, rotate, shear, translate

NEUTRAL = {"auto_contrast", "equalise", "invert", "posterise"}


def noise(frames: int = 3, height: int = 20, width: int = 30) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (frames, 3, height, width), dtype=np.uint8))


def still() -> torch.Tensor:
    return noise(1).expand(4, -1, -1, -1).clone()


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_keep_shape_and_bytes_and_treat_all_frames_alike(name: str) -> None:
    for strength in (0.0, 0.3, 1.0):
        for sign in (-1.0, 1.0):
            before = still()
            out = OPERATIONS[name](before, strength, sign)
            assert out.dtype == torch.uint8
            assert out.shape == before.shape
            assert (out == out[:1]).all()
            assert (before == still()).all(), "the input was written to"


@pytest.mark.parametrize("name", sorted(OPERATIONS.keys() - NEUTRAL))
def test_no_strength_changes_nothing(name: str) -> None:
    assert torch.equal(OPERATIONS[name](noise(), 0.0, 1.0), noise())


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_moderate_strength_changes_something(name: str) -> None:
    clip = noise() // 2 + 30
    assert not torch.equal(OPERATIONS[name](clip, 0.7, 1.0), clip)


def test_known_values() -> None:
    clip = torch.tensor([0, 50, 128, 255], dtype=torch.uint8).expand(1, 3, 1, 4)

    def row(changed: torch.Tensor) -> list[int]:
        return [int(value) for value in changed[0, 0, 0]]

    assert row(colour.invert(clip)) == [255, 205, 127, 0]
    assert row(colour.posterise(clip, 1)) == [0, 0, 128, 128]
    assert row(colour.posterise(clip, 8)) == [0, 50, 128, 255]
    assert row(colour.posterise(clip, 0)) == [0, 0, 0, 0]
    assert row(colour.solarise(clip, 128)) == [0, 50, 127, 0]
    assert row(colour.solarise_add(clip, 110)) == [110, 160, 128, 255]
    assert row(colour.brightness(clip, 1.5)) == [0, 75, 192, 255]
    assert row(colour.contrast(clip, 0.0)) == [108] * 4
    assert row(colour.auto_contrast(clip // 2 + 10)) == [0, 50, 129, 255]


def test_saturation_zero_is_grey() -> None:
    grey = colour.saturation(noise(), 0.0)
    assert (grey == grey[:, :1]).all()
    weights = torch.tensor(colour.LUMA).view(1, 3, 1, 1)
    assert ((noise().float() * weights).sum(1) - grey[:, 0].float()).abs().max() <= 0.51


def test_equalise_flattens_the_histogram() -> None:
    dark = (noise(8, 64, 64) // 8).contiguous()
    flat = colour.equalise(dark)
    assert flat.max() > 240
    assert flat.float().mean() == pytest.approx(127, abs=6)
    uniform = torch.full((2, 3, 8, 8), 9, dtype=torch.uint8)
    assert torch.equal(colour.equalise(uniform), uniform)


def test_sharpness_zero_smooths_and_keeps_the_border() -> None:
    clip = noise()
    smooth = colour.sharpness(clip, 0.0)
    assert torch.equal(smooth[..., 0, :], clip[..., 0, :])
    middle = clip[0, 0, 4:7, 4:7].float()
    assert smooth[0, 0, 5, 5] == int(((middle.sum() + 4 * middle[1, 1]) / 13).round())


def test_hue_turns_colours_but_not_greys_and_keeps_brightness() -> None:
    matrix = colour.hue_matrix(0.5)
    luma = torch.tensor(colour.LUMA)
    torch.testing.assert_close(luma @ matrix, luma, atol=1e-5, rtol=0)
    torch.testing.assert_close(matrix.sum(1), torch.ones(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(matrix @ matrix, torch.eye(3), atol=1e-5, rtol=0)


def test_jitter_without_spread_changes_nothing_and_with_it_does() -> None:
    none = ColourJitter(brightness=0, contrast=0, saturation=0, hue=0)
    assert torch.equal(none(noise(), generator(0)), noise())
    out = ColourJitter(hue=0.1)(still(), generator(0))
    assert not torch.equal(out, still())
    assert (out == out[:1]).all()
    assert torch.equal(out, ColourJitter(hue=0.1)(still(), generator(0)))


def test_jitter_equals_its_operations_one_after_another() -> None:
    """Where nothing is clipped, the joined map is brightness, then contrast, then saturation."""
    clip = noise() // 4 + 90
    rng = generator(5)
    first, second, third = (float(rng.uniform(0.9, 1.1)) for _ in range(3))
    single = colour.saturation(colour.contrast(colour.brightness(clip, first), second), third)
    joined = ColourJitter(brightness=0.1, contrast=0.1, saturation=0.1)(clip, generator(5))
    assert (single.int() - joined.int()).abs().max() <= 2


def test_geometry_moves_a_dot_where_it_should() -> None:
    clip = torch.zeros(1, 3, 21, 31, dtype=torch.uint8)
    clip[..., 10, 20] = 255  # five to the right of the centre

    def dot(moved: torch.Tensor) -> tuple[int, int]:
        bright = (moved[0, 0].float() - 123.675).clamp(min=0)[3:-3, 3:-3]
        place = int(bright.argmax())
        return place // bright.shape[1] + 3, place % bright.shape[1] + 3

    assert dot(clip) == (10, 20)
    assert dot(rotate(clip, 90.0)) == (5, 15)
    assert dot(rotate(clip, -90.0)) == (15, 15)
    assert dot(translate(clip, x=-3 / 31)) == (10, 17)
    assert dot(translate(clip, y=2 / 21)) == (12, 20)
    assert dot(shear(clip, y=0.4)) == (8, 20)
    assert dot(shear(clip, x=0.4)) == (10, 20)


def test_what_is_moved_in_is_the_mean_colour() -> None:
    out = translate(noise(), x=0.5)
    assert out[0, :, 0, 0].tolist() == [124, 116, 104]
    assert translate(noise(), x=1.5)[0, :, 5, 5].tolist() == [124, 116, 104]


def test_randaugment_is_deterministic_and_zero_probability_does_nothing() -> None:
    assert torch.equal(RandAugment(probability=0)(noise(), generator(0)), noise())
    outs = [RandAugment()(noise(), generator(draw)) for draw in range(12)]
    assert torch.equal(outs[3], RandAugment()(noise(), generator(3)))
    assert sum(torch.equal(out, noise()) for out in outs) <= 3
    assert all((RandAugment()(still(), generator(draw)) == RandAugment()(still(), generator(draw))[:1]).all()
               for draw in range(12))  # fmt: skip
