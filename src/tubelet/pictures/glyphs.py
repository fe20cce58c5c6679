"""Histograms of gradients as pictures: in each cell a line for each direction, as bright as its share."""

from __future__ import annotations

import math
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

THINNEST_PIXELS: Final = 1.4
THICKEST_PIXELS: Final = 2.0
WHITE: Final = 255.0


def glyphs(maps: Float[Tensor, "T C bins y x"], pixels: int, *, full: float = 1.0) -> Float[Tensor, "T 3 H W"]:
    """Pictures in 0..255, `pixels` per cell: white where a bin is `full`, black at and below zero.

    Lines run along edges, so across the gradient, as in `skimage.feature.hog`. Where lines cross or touch, the
    brightest counts, so many faint bins do not add up to a bright one. Three colours are drawn in their own colour, and
    are white together.
    """
    strokes = lines(maps.shape[2], pixels).to(maps.device)
    shares = (maps.float() / full).clamp(0.0, 1.0)[:, :, :, :, None, :, None]  # t c bins y 1 x 1
    drawn = shares[:, :, 0] * strokes[0].unsqueeze(1)
    for share, stroke in zip(shares.unbind(2)[1:], strokes[1:], strict=True):
        drawn = torch.maximum(drawn, share * stroke.unsqueeze(1))
    pictures = drawn.flatten(4, 5).flatten(2, 3) * WHITE
    return pictures.expand(-1, 3, -1, -1)


def lines(bins: int, pixels: int) -> Float[Tensor, "{bins} {pixels} {pixels}"]:
    """For each bin of `tubelet.targets.hog` the line along an edge in its middle direction, 0..1, smooth at its sides.

    The angle of a gradient is that of (down, across): at 0 it points down, and the edge runs across. Lines are thinner
    where many bins share a small cell.
    """
    angle = ((torch.arange(bins) + 0.5) * (math.pi / bins)).view(-1, 1, 1)
    place = torch.arange(pixels) - (pixels - 1) / 2
    down, across = place.view(1, -1, 1), place.view(1, 1, -1)
    aside = (across * angle.sin() + down * angle.cos()).abs()
    along = (across * angle.cos() - down * angle.sin()).abs()
    apart = pixels / 2 * math.pi / bins  # neighbours, at their ends
    stroke = min(max(apart, THINNEST_PIXELS), THICKEST_PIXELS)
    return (stroke / 2 + 0.5 - aside).clamp(0.0, 1.0) * (pixels / 2 - along).clamp(0.0, 1.0)
