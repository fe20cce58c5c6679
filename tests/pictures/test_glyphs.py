"""Glyphs: a line runs along the edge whose gradient voted for its bin."""

import pytest
import torch

from tubelet.pictures.glyphs import glyphs, lines
from tubelet.targets.hog import Hog
from tubelet.types import Cube, Grid

CUBE = Cube(1, 24, 24)


def drawn(picture: torch.Tensor) -> torch.Tensor:
    """The middle one of 3 x 3 cells of a picture [24,24], drawn with 33 pixels: [33,33] in 0..1."""
    spec = Hog()
    rows = spec.rows(picture.to(torch.uint8).expand(1, 3, 1, 24, 24), torch.tensor([[0]]), CUBE)
    pictures = glyphs(spec.maps(rows, Grid(1, 1, 1), CUBE)[0], 33)
    assert pictures.shape == (1, 3, 99, 99)
    return pictures[0, 0, 33:66, 33:66] / 255


@pytest.mark.parametrize("degrees", [10, 30, 50, 70, 90, 110, 130, 150, 170])
def test_a_line_runs_along_the_edge(degrees: int) -> None:
    """A gradient at an angle of (down, across), in the middle of a bin; the edge is at right angles to it."""
    angle = torch.deg2rad(torch.tensor(float(degrees)))
    place = torch.arange(24) - 11.5
    picture = 128 + 4 * (place * angle.sin() + place[:, None] * angle.cos())
    found = drawn(picture)
    down, across = torch.meshgrid(torch.arange(33) - 16.0, torch.arange(33) - 16.0, indexing="ij")
    along = (across * angle.cos() - down * angle.sin()).abs()
    aside = (across * angle.sin() + down * angle.cos()).abs()
    assert found[(along < 12) & (aside < 0.5)].min() > 0.7
    assert found[aside > 4].max() < 0.2


def test_a_flat_picture_and_negative_predictions_are_black() -> None:
    assert not drawn(torch.full((24, 24), 77)).any()
    assert not glyphs(torch.full((2, 1, 9, 3, 3), -0.5), 8).any()


def test_the_fullest_bin_is_white_and_one_channel_is_drawn_grey() -> None:
    maps = torch.zeros(1, 1, 9, 2, 2)
    maps[0, 0, 4, 0, 1] = 7.0
    pictures = glyphs(maps, 16, full=7.0).clone()
    assert pictures.shape == (1, 3, 32, 32)
    assert pictures.max() == 255
    assert pictures[:, :, :16, 16:].any()
    assert torch.equal(pictures[:, 0], pictures[:, 1])
    pictures[:, :, :16, 16:] = 0
    assert not pictures.any()


def test_many_faint_bins_do_not_add_up() -> None:
    pictures = glyphs(torch.full((1, 3, 36, 2, 2), 0.25), 16)
    assert pictures.max() == pytest.approx(0.25 * 255)
    alone = torch.zeros(1, 1, 36, 1, 1)
    alone[:, :, 7] = 0.5
    among = alone + 0.01
    assert glyphs(among, 16).max() == pytest.approx(0.51 * 255)
    torch.testing.assert_close(glyphs(alone.expand(-1, 3, -1, -1, -1), 16), glyphs(alone, 16))


@pytest.mark.parametrize(("bins", "pixels", "thick"), [(2, 16, 2.0), (8, 16, 2.0), (15, 16, 1.68), (36, 16, 1.4)])
def test_lines_are_thinner_where_many_bins_share_a_cell(bins: int, pixels: int, thick: float) -> None:
    middle = bins // 2
    angle = torch.tensor((middle + 0.5) * torch.pi / bins)
    row = lines(bins, pixels)[middle, pixels // 2]
    assert row.sum() * angle.sin() == pytest.approx(thick, abs=0.1)


def test_lines_are_centred_and_turn_by_one_bin() -> None:
    strokes = lines(8, 17)
    torch.testing.assert_close(strokes, strokes.flip(1, 2))
    torch.testing.assert_close(strokes.rot90(1, (1, 2)), strokes.roll(-4, 0), atol=1e-5, rtol=0)
