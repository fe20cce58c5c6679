"""Cubes: taken by index as bytes, embedded as a convolution would, placed by a fixed table."""

import math

import pytest
import torch
from torch.nn import functional as F

from tubelet.nn.patch import CubeEmbed
from tubelet.nn.pixels import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Normalise,
    all_cubes,
    join_cubes,
    take_cubes,
    take_cubes_plain,
)
from tubelet.nn.position import learnt, sinusoid, stretch, stretched_sinusoid, take_rows
from tubelet.types import Cube, Grid

CUBES = [Cube(2, 8, 8), Cube(1, 4, 4), Cube(2, 16, 16), Cube(4, 8, 16)]


def video(dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    return torch.randint(0, 256, (3, 3, 4, 16, 32)).to(dtype)


@pytest.mark.parametrize("cube", CUBES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_taken_cubes_are_rows_of_all_cubes(cube: Cube, dtype: torch.dtype) -> None:
    clip = video(dtype)
    everything = all_cubes(clip, cube)
    index = torch.stack([torch.randperm(everything.shape[1])[:2] for _ in range(3)])
    expected = torch.stack([everything[b, index[b]] for b in range(3)])
    taken = take_cubes(clip, index, cube)
    assert taken.dtype == dtype
    assert torch.equal(taken, expected)
    assert torch.equal(take_cubes_plain(clip, index, cube), expected)


def test_cubes_are_taken_from_any_memory_layout() -> None:
    cube, index = Cube(2, 8, 8), torch.tensor([[0, 5], [3, 1], [2, 15]])
    clip = video()
    expected = take_cubes_plain(clip, index, cube)
    frames_last = clip.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    shifted = torch.cat([torch.zeros(3, dtype=torch.uint8), clip.flatten()])[3:].view(clip.shape)
    assert shifted.storage_offset() % 8
    assert torch.equal(take_cubes(frames_last, index, cube), expected)
    assert torch.equal(take_cubes(shifted, index, cube), expected)
    assert torch.equal(take_cubes(clip[1:], index[1:], cube), expected[1:])


def test_joined_cubes_are_the_video() -> None:
    clip = video()
    assert torch.equal(join_cubes(all_cubes(clip, Cube(2, 8, 8)), Grid(2, 2, 4)), clip)


def test_normalise_gives_imagenet_statistics_and_back() -> None:
    normalise = Normalise()
    clip = video()
    cubes = all_cubes(clip, Cube(2, 8, 8))
    mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1, 1)
    std = torch.tensor(IMAGENET_STD).view(3, 1, 1, 1)
    torch.testing.assert_close(normalise(cubes), (cubes / 255.0 - mean) / std)
    assert torch.equal(normalise(cubes), normalise(cubes.float()))
    back = normalise.inverse(join_cubes(normalise(cubes), Grid(2, 2, 4)))
    torch.testing.assert_close(back, clip.float(), atol=1e-3, rtol=0)
    assert not normalise.state_dict()


def test_normalise_leaves_its_input_alone() -> None:
    cubes = all_cubes(video(torch.float32), Cube(2, 8, 8))
    before = cubes.clone()
    Normalise()(cubes)
    assert torch.equal(cubes, before)


def test_cube_embedding_is_the_convolution() -> None:
    cube = Cube(2, 8, 8)
    embed = CubeEmbed(20, cube)
    clip = torch.randn(2, 3, 4, 16, 16)
    convolved = F.conv3d(clip, embed.weight, embed.bias, stride=cube).flatten(2).transpose(1, 2)
    torch.testing.assert_close(embed(all_cubes(clip, cube)), convolved, atol=1e-5, rtol=1e-5)
    bound = 1 / math.sqrt(3 * 2 * 8 * 8)
    assert float(embed.weight.detach().abs().max()) <= bound
    assert float(embed.weight.detach().abs().max()) > 0.99 * bound


@pytest.mark.parametrize("width", [6, 7])
def test_sinusoid_is_the_formula_over_the_flattened_index(width: int) -> None:
    table = sinusoid(10, width)[0]
    for i in (0, 3, 9):
        for j in range(width):
            angle = i / 10000 ** (2 * (j // 2) / width)
            assert float(table[i, j]) == pytest.approx(math.sin(angle) if j % 2 == 0 else math.cos(angle), abs=1e-6)


def test_rows_of_a_table_follow_the_index() -> None:
    table = learnt(6, 4)
    rows = take_rows(table, torch.tensor([[5, 0], [1, 1]]))
    assert torch.equal(rows[0, 0], table[0, 5])
    assert torch.equal(rows[1, 0], rows[1, 1])


def test_a_stretched_table_is_smooth_along_each_axis_and_the_same_where_nothing_changes() -> None:
    trained = Grid(4, 3, 3)
    ramp = torch.arange(4.0).repeat_interleave(9).view(1, 36, 1)  # grows with time alone
    longer = stretch(ramp, trained, Grid(8, 3, 3)).view(8, 9)
    assert torch.equal(longer, longer[:, :1].expand(8, 9))
    torch.testing.assert_close(longer[:, 0], torch.tensor([0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0]))
    columns = torch.arange(3.0).repeat(12).view(1, 36, 1)  # grows with the column alone
    wider = stretch(columns, trained, Grid(4, 3, 6)).view(4, 3, 6)
    assert (wider.diff(dim=2) > 0).all()
    torch.testing.assert_close(wider, wider[:1, :1].expand(4, 3, 6))
    table = torch.randn(1, 36, 5)
    assert torch.equal(stretch(table, trained, trained), table)
    assert torch.equal(stretched_sinusoid(trained, 6, trained=None), sinusoid(36, 6))
    assert not torch.equal(stretched_sinusoid(Grid(8, 3, 3), 6, trained=trained), sinusoid(72, 6))
