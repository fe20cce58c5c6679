"""Bytes of a video to cubes and to normalised values. The only place that knows how a video is cut into tokens.

Shape letters: f p q frames, rows and columns of one cube; see `tubelet.types` for the others.
"""

from __future__ import annotations

from typing import Final, Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor, nn
from torch.nn import functional as F

from tubelet.nn.constants import register_constants
from tubelet.spec import Spec
from tubelet.types import Cube, Grid

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)
WORD_BYTES: Final = 8


class Colours(Spec):
    """Mean and deviation of red, green and blue in 0..1 that a model was trained with; the default is ImageNet's."""

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


class Normalise(nn.Module):
    """Colours 0..255 to zero mean and unit deviation.

    The statistics are non-persistent buffers: `.to()` moves them, checkpoints do not hold them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, colours: Colours = Colours()) -> None:
        super().__init__()
        self._colours = colours
        register_constants(self)

    def constants(self) -> dict[str, Tensor]:
        """`mean` and `std`, [3]."""
        return {"mean": torch.tensor(self._colours.mean), "std": torch.tensor(self._colours.std)}

    def forward(self, cubes: Num[Tensor, "B N C f p q"]) -> Float[Tensor, "B N C f p q"]:
        """Of uint8 cubes, or of float ones in the same range 0..255 (mixup, golden arrays). Result is float32."""
        scale = (1.0 / (255.0 * self.std)).unsqueeze(1)
        shift = (self.mean / self.std).unsqueeze(1)
        values = cubes.flatten(3).to(torch.float32, copy=True)  # in place on a copy: 3 times as fast on a CPU
        return values.mul_(scale).sub_(shift).view(cubes.shape)

    def video(self, video: Num[Tensor, "B C T H W"]) -> Float[Tensor, "B C T H W"]:
        """The same of a whole video: what an embedding of overlapping cubes reads."""
        normalised: Tensor = self(video.unsqueeze(1))
        return normalised.squeeze(1)

    def inverse(self, video: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C T H W"]:
        """A normalised video back to the range 0..255."""
        return (video * self.std.view(-1, 1, 1, 1) + self.mean.view(-1, 1, 1, 1)) * 255.0


def grid_of(video: Num[Tensor, "B C T H W"], cube: Cube) -> Grid:
    """The token grid of a video; the cube divides it (checked where the model is built)."""
    frames, height, width = video.shape[2:]
    return Grid(frames // cube.frames, height // cube.height, width // cube.width)


def all_cubes(video: Num[Tensor, "B C T H W"], cube: Cube) -> Num[Tensor, "B N C f p q"]:
    """Every cube in raster order (t, h, w). Keeps the dtype."""
    f, p, q = cube
    return rearrange(video, "B C (t f) (h p) (w q) -> B (t h w) C f p q", f=f, p=p, q=q)


def take_cubes(video: Num[Tensor, "B C T H W"], index: Int[Tensor, "B V"], cube: Cube) -> Num[Tensor, "B V C f p q"]:
    """The cubes at these token indices. Only they are copied, and as bytes where the video is bytes.

    Rows of 8 bytes are moved as one number, which is 4 times as fast on a CPU as byte by byte.
    """
    byte_rows = video.dtype == torch.uint8 and cube.width % WORD_BYTES == 0 and video.is_contiguous()
    if not byte_rows or video.storage_offset() % WORD_BYTES or not index.numel():
        return take_cubes_plain(video, index, cube)
    words = take_cubes_plain(video.view(torch.int64), index, cube._replace(width=cube.width // WORD_BYTES))
    return words.view(torch.uint8)


def take_cubes_plain(
    video: Num[Tensor, "B C T H W"], index: Int[Tensor, "B V"], cube: Cube
) -> Num[Tensor, "B V C f p q"]:
    """The same for any dtype and memory layout: what `take_cubes` is tested against."""
    grid = grid_of(video, cube)
    f, p, q = cube
    blocks = rearrange(video, "B C (t f) (h p) (w q) -> B t h w C f p q", f=f, p=p, q=q)  # a view
    clip = torch.arange(len(video), device=video.device).unsqueeze(1)
    return blocks[clip, index // (grid.h * grid.w), index // grid.w % grid.h, index % grid.w]


def join_cubes(cubes: Num[Tensor, "B N C f p q"], grid: Grid) -> Num[Tensor, "B C T H W"]:
    """The video of all N cubes in raster order: the inverse of `all_cubes`."""
    return rearrange(cubes, "B (t h w) C f p q -> B C (t f) (h p) (w q)", t=grid.t, h=grid.h, w=grid.w)


def cells_to_tokens(hidden: Bool[Tensor, "B t h w"], grid: Grid) -> Bool[Tensor, "B N"]:
    """A mask of coarse cells for the tokens of a grid; ValueError where its sides do not divide the grid's."""
    for axis, tokens in enumerate(grid, start=1):
        cells = hidden.shape[axis]
        if tokens % cells:
            raise ValueError(
                f"a mask of {tuple(hidden.shape[1:])} cells does not divide {tuple(grid)} tokens; "
                "choose another mask grid"
            )
        hidden = hidden.repeat_interleave(tokens // cells, dim=axis, output_size=tokens)
    return hidden.flatten(1)


def resized(
    video: Num[Tensor, "B C T H W"], size: int, *, how: Literal["bilinear", "bicubic"] = "bilinear"
) -> Num[Tensor, "B C T _ _"]:
    """The same clips with frames of `size` x `size` pixels, antialiased: float in 0..255.

    As they came where they have that size.
    """
    if video.shape[-2:] == (size, size):
        return video
    frames = rearrange(video.float(), "B C T H W -> (B T) C H W")
    frames = F.interpolate(frames, (size, size), mode=how, antialias=True)
    if how == "bicubic":
        frames = frames.clamp(0.0, 255.0)  # it overshoots at edges
    return rearrange(frames, "(B T) C H W -> B C T H W", B=len(video))
