"""Pixel targets: by the formula of the paper, and back to pixels."""

import torch

from tubelet.nn.pixels import all_cubes, join_cubes, take_cubes
from tubelet.targets.pixels import NormalisedPixels, Pixels, coloured, colours, from_rows, statistics, to_cubes
from tubelet.types import Cube, Grid

CUBE = Cube(2, 8, 8)
WANTED = torch.tensor([[0, 3, 5], [7, 1, 2]])


def clips() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 4, 16, 16), dtype=torch.uint8)


def by_hand(video: torch.Tensor, b: int, token: int) -> torch.Tensor:
    """One normalised cube with loops over colours, in float64: [f,p,q,C]."""
    cube = all_cubes(video, CUBE)[b, token].double() / 255.0
    for c in range(3):
        cube[c] = (cube[c] - cube[c].mean()) / (cube[c].var(unbiased=True).sqrt() + 1e-6)
    return cube.permute(1, 2, 3, 0)


def test_normalised_rows_are_the_formula() -> None:
    video = clips()
    rows = NormalisedPixels().rows(video, WANTED, CUBE)
    assert rows.shape == (2, 3, NormalisedPixels().width(CUBE))
    for b in range(2):
        for k in range(3):
            expected = by_hand(video, b, int(WANTED[b, k])).flatten().float()
            torch.testing.assert_close(rows[b, k], expected, atol=1e-5, rtol=1e-5)


def test_plain_rows_are_the_pixels() -> None:
    video = clips()
    rows = Pixels().rows(video, WANTED, CUBE)
    expected = take_cubes(video, WANTED, CUBE).permute(0, 1, 3, 4, 5, 2).flatten(2) / 255.0
    torch.testing.assert_close(rows, expected)


def test_a_cube_of_one_colour_is_zero_not_infinite() -> None:
    video = torch.full((2, 3, 4, 16, 16), 200, dtype=torch.uint8)
    assert not NormalisedPixels().rows(video, WANTED, CUBE).any()


def test_true_statistics_undo_the_normalisation() -> None:
    video = clips()
    everything = torch.arange(8).expand(2, -1)
    rows = NormalisedPixels().rows(video, everything, CUBE)
    back = coloured(rows, statistics(colours(video, everything, CUBE)))
    torch.testing.assert_close(join_cubes(to_cubes(back, CUBE), Grid(2, 2, 2)), video.float(), atol=2e-3, rtol=0)


def test_plain_rows_go_back_to_cubes() -> None:
    video = clips()
    cubes = to_cubes(from_rows(Pixels().rows(video, WANTED, CUBE), channels=3) * 255.0, CUBE)
    torch.testing.assert_close(cubes, take_cubes(video, WANTED, CUBE).float(), atol=1e-3, rtol=0)
