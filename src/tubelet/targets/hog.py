"""HOG as target: which way the edges of a hidden part run, whatever its brightness and contrast (arXiv:2112.09133).

Shape letters: f frames, r s cells down and across, a b pixels down and across of a cell; see `tubelet.types`.
"""

from __future__ import annotations

import math
from typing import ClassVar, Final, Literal, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int, Num
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from tubelet.nn.pixels import WORD_BYTES, grid_of
from tubelet.targets.base import OwnTarget, Picture
from tubelet.types import ClipShape, Cube, Grid

EPS: Final = 1e-12
"""Smallest length that a histogram is divided by: a flat cell stays zero."""
CLIP: Final = 0.2
"""Of Dalal and Triggs's clipped norm (CVPR 2005, section 6.4)."""
STD: Final = 255 * 0.225
"""What MaskFeat divides pixels by: the unit of histograms without norm."""
TINY: Final = 1e-30
"""Added to gradients down, so that a quotient is never 0 / 0."""
CACHED_PIXELS: Final = 131_072
"""Values of pixels that a CPU core works on at once: four arrays of them stay in its cache."""
GPU_PIXELS: Final = 16_777_216
"""Values that a GPU works on at once, at about 30 bytes each."""
VOTE_BYTES: Final = 16
"""Of a pixel that votes: four arrays of its gradients, vote, angle and bin are there at once."""
LUMA: Final = (0.299, 0.587, 0.114)


Norm = Literal["cell", "block2", "block2_clipped", "none"]


class Gradients(NamedTuple):
    """How much brighter it is on the left than on the right, and above than below; contiguous, int16 or float32."""

    across: Num[Tensor, "B C T H W"]
    down: Num[Tensor, "B C T H W"]


class Hog(OwnTarget):
    """Histograms of oriented gradients of the cells of a token (arXiv:2112.09133, section 3.2).

    A pixel votes with the length of its Sobel gradient for one of `bins` unsigned directions; votes are summed over
    cells of `cell` x `cell` pixels. The defaults are those of the released code (SlowFast `HOGLayerC`, `MaskMViT`).
    Layout of a row: (frame, colour, bin, cell row, cell column), the last fastest; one frame unless `frames` is "all".

    `norm`: "cell" divides each histogram by its L2 norm, per colour. "block2" takes that norm over 2 x 2 neighbouring
    cells, "block2_clipped" also cuts the result at 0.2 and divides once more (Dalal and Triggs's L2-Hys); blocks do
    not overlap and lie within tokens. "none" is the mean vote of a pixel, pixels over their std of 0.225.

    The authors' layer sees frames minus 0.45, over 0.225. With a norm neither changes anything, so here are pixels as
    they are. Gradients of bytes are whole numbers: a flat cell is exactly zero, where theirs may be a rounding residue
    blown up to length 1.
    """

    picture: ClassVar[Picture | None] = "lines"
    kind: Literal["hog"] = "hog"
    bins: int = Field(default=9, ge=2, description="directions that 180 degrees are cut into")
    cell: int = Field(default=8, ge=2, description="pixels down and across one histogram; divides the patch")
    colours: Literal["rgb", "grey"] = Field(default="rgb", description="histograms of each colour, or of luma")
    window: int | None = Field(
        default=None, ge=2, description="pixels across a Gaussian that weighs votes, laid side by side; null = none"
    )
    norm: Norm = "cell"
    frames: Literal["first", "centre", "all"] = Field(
        default="first", description="of a tubelet; the centre of an even one is the frame after the middle"
    )

    def width(self, cube: Cube) -> int:
        """Numbers per token. ValueError where cells, blocks or window do not fit the patch."""
        self._check(cube)
        frames = cube.frames if self.frames == "all" else 1
        cells = (cube.height // self.cell) * (cube.width // self.cell)
        return frames * (3 if self.colours == "rgb" else 1) * self.bins * cells

    def rows(self, video: Num[Tensor, "B C T H W"], wanted: Int[Tensor, "B K"], cube: Cube) -> Float[Tensor, "B K P"]:
        """Targets of the wanted tokens, float32 under autocast too. `video` is uint8 or float in 0..255.

        Gradients at the rim of a token reach into its neighbours; at the rim of the frame the picture is mirrored.
        """
        self._check(cube)
        with torch.no_grad():
            frames = self._planes(self._frames_of(video, cube))
            taken = cube if self.frames == "all" else cube._replace(frames=1)
            lines = cell_lines(frames, wanted, taken, self.cell)
            weight = None if self.window is None else gaussian_cells(cube, self.cell, self.window, video.device)
            votes = histograms(sobel(frames), lines, self.bins, weight=weight)
            found = normalised(votes, self.norm, pixels=self.cell**2)
            return rearrange(found, "B K f C r s bins -> B K (f C bins r s)")

    def maps(self, rows: Float[Tensor, "B N P"], grid: Grid, cube: Cube) -> Float[Tensor, "B _ C bins y x"]:
        """The rows of all tokens as histograms of the cells of each frame that has some: for pictures."""
        return rearrange(
            rows, "B (t h w) (f C bins r s) -> B (t f) C bins (h r) (w s)",
            t=grid.t, h=grid.h, f=cube.frames if self.frames == "all" else 1,
            bins=self.bins, r=cube.height // self.cell, s=cube.width // self.cell,
        )  # fmt: skip

    def numbers(self, frames: int, cube: Cube) -> range:
        """Which of so many frames of a clip have histograms, from 0."""
        if self.frames == "all":
            return range(frames)
        return range(cube.frames // 2 if self.frames == "centre" else 0, frames, cube.frames)

    def peak_bytes(self, clip: ClipShape, cube: Cube, *, rows: int, clips: int, on_cpu: bool) -> int:
        """Most bytes that `rows` holds at once for so many clips with so many wanted tokens in all, result included.

        That is while gradients are taken, or while cells vote, or where histograms are put in rows.
        """
        frames = clip.frames if self.frames == "all" else -(-clip.frames // cube.frames)
        colours = 3 if self.colours == "rgb" else 1
        values = clips * frames * colours * clip.size**2
        number = 2 if self.colours == "rgb" else 4
        taken = rows * (cube.frames if self.frames == "all" else 1) * colours * cube.height * cube.width
        lines = 8 * taken // self.cell
        at_once = CACHED_PIXELS * torch.get_num_threads() if on_cpu else GPU_PIXELS
        votes = 4 * rows * self.width(cube)
        held = 2 * number * values + lines + (4 * values if self.colours == "grey" else 0)
        return held + max(3 * number * values, votes + VOTE_BYTES * min(at_once, taken), 3 * votes)

    def _frames_of(self, video: Num[Tensor, "B C T H W"], cube: Cube) -> Num[Tensor, "B C _ H W"]:
        """The frames that have histograms; a view."""
        numbers = self.numbers(video.shape[2], cube)
        return video[:, :, numbers.start :: numbers.step]

    def _planes(self, frames: Num[Tensor, "B C T H W"]) -> Num[Tensor, "B _ T H W"]:
        """The colours that have histograms."""
        channels = frames.shape[1]
        if channels == (3 if self.colours == "rgb" else 1):
            return frames
        if self.colours == "grey" and channels == 3:
            red, green, blue = (frames.float() if frames.is_floating_point() else frames).unbind(1)
            return (red * LUMA[0] + green * LUMA[1] + blue * LUMA[2]).unsqueeze(1)
        takes = "1 or 3" if self.colours == "grey" else "3"
        hint = "; set target.colours=grey" if channels == 1 else ""
        raise ValueError(f"target hog: colours={self.colours} takes {takes} channels, the video has {channels}{hint}")

    def _check(self, cube: Cube) -> None:
        patch = cube.height if cube.height == cube.width else (cube.height, cube.width)
        whole = math.gcd(cube.height, cube.width)
        if whole % self.cell:
            fitting = ", ".join(str(n) for n in range(2, whole + 1) if whole % n == 0) or "none"
            raise ValueError(
                f"target hog: cell {self.cell} does not divide the patch {patch}; cells that do: {fitting}"
            )
        if self.norm.startswith("block2") and whole % (2 * self.cell):
            raise ValueError(
                f"target hog: norm {self.norm} takes 2 x 2 cells, and a patch of {patch} has "
                f"{cube.height // self.cell} x {cube.width // self.cell}"
            )
        if self.window is not None and whole % self.window:
            raise ValueError(f"target hog: window {self.window} does not divide the patch {patch}")


def sobel(frames: Num[Tensor, "B C T H W"]) -> Gradients:
    """Gradients across and down, left minus right and upper minus lower, weights 1 2 1; mirrored at the rim.

    int16 of bytes, and exact; float32 of floats. Columns are subtracted after rows were summed, so that the gradient
    across is 0 in the first and the last column, and not a rounding error.
    """
    padded = _mirrored(frames)
    upper, middle, lower = padded[..., :-2, :], padded[..., 1:-1, :], padded[..., 2:, :]
    smooth = (upper + lower).add_(middle, alpha=2)
    step = upper - lower
    across = smooth[..., :-2] - smooth[..., 2:]
    down = (step[..., :-2] + step[..., 2:]).add_(step[..., 1:-1], alpha=2)
    return Gradients(across, down)


def cell_lines(
    values: Num[Tensor, "B C T H W"], wanted: Int[Tensor, "B K"], cube: Cube, cell: int
) -> Int[Tensor, "B K f C r s a"]:
    """Which of the pieces of `cell` pixels that the rows of `values` are cut into make up the wanted tokens."""
    *front, width = values.shape
    grid = grid_of(values, cube)
    numbers = torch.arange(values.numel() // cell, device=values.device).view(*front, width // cell)
    clip = torch.arange(len(values), device=values.device).unsqueeze(1)
    step, row, column = wanted // (grid.h * grid.w), wanted // grid.w % grid.h, wanted % grid.w
    corner = numbers[clip, 0, step * cube.frames, row * cube.height, column * (cube.width // cell)]
    token = numbers[0, :, : cube.frames, : cube.height, : cube.width // cell]
    return corner[:, :, None, None, None, None, None] + rearrange(token, "C f (r a) s -> f C r s a", a=cell)


def take_cells(values: Num[Tensor, "B C T H W"], lines: Int[Tensor, "n f C r s a"]) -> Num[Tensor, "n f C r s a b"]:
    """The pixels of these lines, always a copy; cells are square. `values` is contiguous."""
    cell = lines.shape[-1]
    rows = values.view(-1, cell)
    if cell * values.element_size() % WORD_BYTES:
        return rows.index_select(0, lines.flatten()).view(*lines.shape, cell)
    words = rows.view(torch.int64).index_select(0, lines.flatten())  # 8 bytes as one number: twice as fast on a CPU
    return words.view(values.dtype).view(*lines.shape, cell)


def histograms(
    gradients: Gradients,
    lines: Int[Tensor, "B K f C r s a"],
    bins: int,
    *,
    weight: Float[Tensor, "r s a b"] | None = None,
) -> Float[Tensor, "B K f C r s {bins}"]:
    """Votes of the pixels of each cell by direction modulo 180 degrees; each goes into one bin whole, times `weight`.

    Bin 0 begins where the gradient points straight down, and angles grow towards across: with 9 bins, sideways
    gradients are in the middle of bin 4. Tokens are taken in turns, which bounds memory and, on a CPU, stays in cache.
    """
    tokens = lines.flatten(0, 1)
    pixels = math.prod(tokens.shape[1:]) * lines.shape[-1]
    at_once = CACHED_PIXELS * torch.get_num_threads() if lines.device.type == "cpu" else GPU_PIXELS
    turns = tokens.split(max(1, at_once // pixels))
    found = torch.cat([_histograms(gradients, turn, bins, weight=weight) for turn in turns])
    return found.view(*lines.shape[:-1], bins)


def normalised(
    votes: Float[Tensor, "B K f C r s bins"], norm: Norm, *, pixels: int
) -> Float[Tensor, "B K f C r s bins"]:
    """By `Hog.norm`, of sums of the votes of `pixels` pixels in 0..255."""
    if norm == "none":
        return votes / (pixels * STD)
    if norm == "cell":
        return F.normalize(votes, dim=-1, eps=EPS)
    blocks = rearrange(votes, "B K f C (r u) (s v) bins -> B K f C r s (u v bins)", u=2, v=2)
    blocks = F.normalize(blocks, dim=-1, eps=EPS)
    if norm == "block2_clipped":
        blocks = F.normalize(blocks.clamp(max=CLIP), dim=-1, eps=EPS)
    return rearrange(blocks, "B K f C r s (u v bins) -> B K f C (r u) (s v) bins", u=2, v=2)


def gaussian_cells(cube: Cube, cell: int, window: int, device: torch.device) -> Float[Tensor, "r s a b"]:
    """Weights of the votes of a token: Gaussians of `window` pixels side by side, sigma half of that, mean 1."""
    places = torch.arange(window, device=device, dtype=torch.float32) - (window - 1) / 2
    bell = torch.exp(-0.5 * (places / (window // 2)).square())
    bell = bell / bell.mean()
    rows, columns = bell.repeat(cube.height // window), bell.repeat(cube.width // window)
    return rearrange(rows.unsqueeze(1) * columns, "(r a) (s b) -> r s a b", a=cell, b=cell)


def _histograms(
    gradients: Gradients, lines: Int[Tensor, "n f C r s a"], bins: int, *, weight: Float[Tensor, "r s a b"] | None
) -> Float[Tensor, "cells {bins}"]:
    """A bag sums the rows of a table that its pixels name, times their votes.

    So there is no pass over the pixels for each bin, and no scattering, which is slow on a CPU and sums in a random
    order on a GPU. The table takes the modulo.
    """
    x, y = (take_cells(part, lines).float() for part in gradients)
    votes = (x * x).addcmul_(y, y).sqrt_()
    if weight is not None:
        votes.mul_(weight)
    lowest = bins // 2 + 1
    angle = x.div_(y.add_(TINY)).atan_().div_(math.pi)  # in half turns; the quotient has lost the sign
    places = angle.mul_(bins).add_(lowest).to(torch.int32)  # 0 to bins + 1, rounded down
    bin_of_place = (torch.arange(bins + 2, device=x.device) - lowest).remainder(bins)
    table = (bin_of_place.unsqueeze(1) == torch.arange(bins, device=x.device)).float()
    cells = (places.flatten(0, -3).flatten(1), votes.flatten(0, -3).flatten(1))
    return F.embedding_bag(cells[0], table, per_sample_weights=cells[1], mode="sum")


def _mirrored(frames: Num[Tensor, "B C T H W"]) -> Num[Tensor, "B C T _ _"]:
    """One pixel more on each side, mirrored about the outermost one (`F.pad` cannot mirror whole numbers)."""
    *front, height, width = frames.shape
    dtype = torch.float32 if frames.is_floating_point() else torch.int16
    padded = torch.empty(*front, height + 2, width + 2, dtype=dtype, device=frames.device)
    padded[..., 1:-1, 1:-1] = frames
    padded[..., 0, :], padded[..., -1, :] = padded[..., 2, :], padded[..., -3, :]
    padded[..., 0], padded[..., -1] = padded[..., 2], padded[..., -3]
    return padded
