"""One frame of a cube as target, normalised over all colours together: what MaskFeat's code compares HOG with."""

from __future__ import annotations

from typing import Final, Literal

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from tubelet.nn.pixels import grid_of, take_cubes
from tubelet.targets.own import OwnTarget
from tubelet.targets.pixels import Statistics, from_rows, statistics
from tubelet.types import ClipShape, Cube

EPS: Final = 1e-6 * (255 * 0.225) ** 2
"""Added to the variance of pixels in 0..255: 1e-6 where pixels are over their deviation of 0.225."""


class FramePixels(OwnTarget):
    """Pixels of the first frame of a cube minus their mean, over their deviation (SlowFast `MaskMViT`, PRED_HOG off).

    Mean and unbiased variance are of all colours together, so a cube keeps its hue; 1e-6 is added to the variance.
    Layout of a row: (row, column, colour), colour fastest.
    """

    kind: Literal["frame_pixels"] = "frame_pixels"

    def width(self, cube: Cube) -> int:
        """Numbers per token."""
        return 3 * cube.height * cube.width

    def rows(self, video: Num[Tensor, "B C T H W"], wanted: Int[Tensor, "B K"], cube: Cube) -> Float[Tensor, "B K P"]:
        """Targets of the wanted tokens, float32 under autocast too. `video` is uint8 or float in 0..255."""
        with torch.no_grad():
            grid_of(video, cube)  # a last cube that is cut short is refused here, not lost
            pixels = take_cubes(video[:, :, :: cube.frames], wanted, cube._replace(frames=1)).float()
            rows = pixels.flatten(3).transpose(2, 3).flatten(2)
            variance, mean = torch.var_mean(rows, dim=2, keepdim=True)
            return (rows - mean) / (variance + EPS).sqrt()

    def passing_bytes(self, clip: ClipShape, cube: Cube, *, rows: int, clips: int, on_cpu: bool) -> int:
        """As of any target; with the pixels, the same by row, less their mean, and the result."""
        del clip, clips, on_cpu
        return 16 * rows * self.width(cube)


def common_statistics(pixels: Float[Tensor, "B K C pixels"]) -> Statistics:
    """Per cube, of all colours together."""
    return statistics(pixels.flatten(2).unsqueeze(2))


def recoloured(rows: Float[Tensor, "B K P"], given: Statistics) -> Float[Tensor, "B K 3 pixels"]:
    """Rows back to pixels in 0..255 with these statistics: the inverse of `FramePixels.rows`."""
    return from_rows(rows, channels=3) * (given.deviation.square() + EPS).sqrt() + given.mean
