"""The overlapping patch embedding is PyTorch's 3-D convolution, with one frame and in bfloat16 too."""

import pytest
import torch
from torch.nn import functional as F

from tubelet.models.mvit.layers import OverlappingCubes


@pytest.mark.parametrize(
    ("frames", "size", "kernel", "stride", "padding"),
    [
        (1, 56, (3, 15, 15), (1, 8, 8), (1, 7, 7)),  # reads past the end in bfloat16, where torch does it
        (1, 32, (3, 7, 7), (2, 4, 4), (1, 3, 3)),
        (1, 32, (1, 7, 7), (1, 4, 4), (0, 3, 3)),
        (1, 32, (2, 7, 7), (1, 4, 4), (1, 3, 3)),  # two tokens over time
        (4, 32, (3, 7, 7), (2, 4, 4), (1, 3, 3)),
        (4, 4, (3, 7, 7), (2, 4, 4), (1, 3, 3)),  # one column: wrong in bfloat16, where torch does it
    ],
)
def test_it_is_the_convolution(
    frames: int, size: int, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    cubes = OverlappingCubes(3, 48, kernel, stride, padding)  # type: ignore[arg-type]
    video = torch.randn(2, 3, frames, size, size)
    wanted = F.conv3d(video, cubes.weight, cubes.bias, stride, padding)
    torch.testing.assert_close(cubes(video), wanted, atol=1e-5, rtol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(cubes(video).float(), wanted, atol=0.03, rtol=0.03)
    (gradient,) = torch.autograd.grad(cubes(video).square().sum(), cubes.weight)
    (expected,) = torch.autograd.grad(wanted.square().sum(), cubes.weight)
    torch.testing.assert_close(gradient, expected, atol=1e-3, rtol=1e-4)
