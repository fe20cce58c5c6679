"""Colour operations on whole clips, uint8 [T,C,H,W] in and out: every frame is changed by the same rule.

Where an operation needs statistics (mean, histogram, extremes) they are those of the clip, not of each frame, so that
nothing flickers.   # PIL, which the authors use, takes them from each frame
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from tubelet.spec import Spec

LUMA: Final = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in brightness (ITU-R BT.601), as PIL uses them."""

IMAGENET_MEAN_BYTES: Final = (123.675, 116.28, 103.53)
IMAGENET_STD_BYTES: Final = (58.395, 57.12, 57.375)

Clip = UInt8[Tensor, "T C H W"]


class ColourJitter(Spec):
    """Random brightness, contrast, saturation and hue, one draw for the whole clip.

    Factors are uniform in [max(0, 1 - x), 1 + x]; hue turns by up to `hue` of the colour circle either way. The four
    are joined to one linear map of the colours (hue turns about the grey axis, keeping brightness), so there is no
    clipping between them.
    """

    brightness: float = Field(default=0.4, ge=0)
    contrast: float = Field(default=0.4, ge=0)
    saturation: float = Field(default=0.4, ge=0)
    hue: float = Field(default=0.0, ge=0, le=0.5)

    def __call__(self, frames: Clip, rng: np.random.Generator) -> Clip:
        spreads = (self.brightness, self.contrast, self.saturation)
        brightness, contrast, saturation = [float(rng.uniform(max(0.0, 1 - x), 1 + x)) for x in spreads]
        turn = float(rng.uniform(-self.hue, self.hue))
        if (brightness, contrast, saturation, turn) == (1.0, 1.0, 1.0, 0.0):
            return frames
        colours = hue_matrix(turn) @ saturation_matrix(saturation)
        grey = brightness * grey_mean(frames)
        return map_colours(frames, brightness * contrast * colours, shift=(1 - contrast) * grey)


def map_colours(frames: Clip, matrix: Float[Tensor, "3 3"], *, shift: float) -> Clip:
    """Each pixel's (red, green, blue) times the matrix, plus a shift of all three; rounded and kept in 0..255."""
    pixels = frames.permute(0, 2, 3, 1).float()
    return to_bytes((pixels @ matrix.T).add_(shift)).permute(0, 3, 1, 2)


def saturation_matrix(factor: float) -> Float[Tensor, "3 3"]:
    """0 is grey, 1 leaves colours alone."""
    grey = torch.tensor(LUMA).expand(3, 3)
    return factor * torch.eye(3) + (1 - factor) * grey


def hue_matrix(turn: float) -> Float[Tensor, "3 3"]:
    """Turns colours by a share of the circle in the I-Q plane of YIQ (the NTSC colour space); brightness stays."""
    to_yiq = torch.tensor([LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)])
    angle = 2 * math.pi * turn
    rotation = torch.tensor(
        [[1.0, 0.0, 0.0], [0.0, math.cos(angle), -math.sin(angle)], [0.0, math.sin(angle), math.cos(angle)]]
    )
    from_yiq: Tensor = torch.linalg.inv(to_yiq)
    return from_yiq @ rotation @ to_yiq


def grey_mean(frames: Clip) -> float:
    """Mean brightness of the clip, 0..255."""
    means = frames.mean(dim=(0, 2, 3), dtype=torch.float32)
    return float(means @ torch.tensor(LUMA))


def brightness(frames: Clip, factor: float) -> Clip:
    """0 is black, 1 leaves the clip alone."""
    return blend(0.0, frames, factor)


def contrast(frames: Clip, factor: float) -> Clip:
    """0 is the clip's mean grey, 1 leaves it alone."""
    return blend(grey_mean(frames), frames, factor)


def saturation(frames: Clip, factor: float) -> Clip:
    """0 is black and white, 1 leaves the clip alone."""
    return map_colours(frames, saturation_matrix(factor), shift=0.0)


def sharpness(frames: Clip, factor: float) -> Clip:
    """0 is smoothed by a 3x3 filter (5 in the middle, sum 13; the border stays), 1 leaves the clip alone."""
    if min(frames.shape[-2:]) < 3:
        return frames
    planes = frames.reshape(-1, 1, *frames.shape[-2:]).float()
    kernel = torch.full((1, 1, 3, 3), 1 / 13)
    kernel[0, 0, 1, 1] = 5 / 13
    smooth = planes.clone()
    smooth[..., 1:-1, 1:-1] = functional.conv2d(planes, kernel)
    return to_bytes(smooth.lerp_(planes, factor)).reshape(frames.shape)


def invert(frames: Clip) -> Clip:
    return 255 - frames


def solarise(frames: Clip, threshold: int) -> Clip:
    """Inverts values at or above the threshold (256: none)."""
    return torch.where(frames >= threshold, 255 - frames, frames) if threshold <= 255 else frames


def solarise_add(frames: Clip, amount: int) -> Clip:
    """Adds to values below 128."""
    added = (frames.to(torch.int16) + amount).clamp_(0, 255).to(torch.uint8)
    return torch.where(frames < 128, added, frames)


def posterise(frames: Clip, bits: int) -> Clip:
    """Keeps the upper `bits` of each value (8: all)."""
    return frames & (256 - 2 ** (8 - bits)) if bits > 0 else torch.zeros_like(frames)


def auto_contrast(frames: Clip) -> Clip:
    """Stretches each colour so that its darkest value becomes 0 and its brightest 255."""
    low = frames.amin(dim=(0, 2, 3), keepdim=True).float()
    high = frames.amax(dim=(0, 2, 3), keepdim=True).float()
    flat = high <= low
    scale = torch.where(flat, 1.0, 255 / (high - low).clamp(min=1))
    return to_bytes((frames.float() - torch.where(flat, 0.0, low)) * scale)


def equalise(frames: Clip) -> Clip:
    """Gives each colour a flat histogram, by PIL's rule (the last filled bin is left out of the step)."""
    return torch.stack([_equalise_plane(frames[:, colour]) for colour in range(frames.shape[1])], dim=1)


def _equalise_plane(plane: UInt8[Tensor, "T H W"]) -> UInt8[Tensor, "T H W"]:
    values = plane.numpy()
    counts = np.bincount(values.reshape(-1), minlength=256)
    filled = counts[counts > 0]
    step = int(filled[:-1].sum()) // 255 if len(filled) > 1 else 0
    if step == 0:
        return plane
    before = np.concatenate([[0], np.cumsum(counts)[:-1]])
    table = np.minimum((before + step // 2) // step, 255).astype(np.uint8)
    return torch.from_numpy(table[values])


def blend(base: float, frames: Clip, factor: float) -> Clip:
    """`base` at factor 0, the frames at factor 1, beyond them above 1."""
    return frames if factor == 1.0 else to_bytes(frames.float().mul_(factor).add_((1 - factor) * base))


def to_bytes(values: Float[Tensor, "..."]) -> UInt8[Tensor, "..."]:
    """Rounded, kept in 0..255."""
    return values.round_().clamp_(0, 255).to(torch.uint8)
