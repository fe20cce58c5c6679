"""Videos made here, for the demo and for tests: coloured shapes on a smooth ground, moved as a whole.

The class is the motion and nothing else. Place, turn, size and colours of a scene are drawn the same way for every
class, so that one frame says nothing of it, and a clip played backwards belongs to the opposite class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from tubelet.rng import generator

SCENE_PIXELS: Final = 96
"""Resolution at which a scene is drawn. It repeats beyond its edges, so that one can move on for ever."""


class SceneMotion(NamedTuple):
    """Change per frame: right and down in frame widths, turn in radians (clockwise), growth of log(size)."""

    right: float = 0.0
    down: float = 0.0
    turn: float = 0.0
    growth: float = 0.0


MOTIONS: Final[dict[str, SceneMotion]] = {
    "left": SceneMotion(right=-0.045),
    "right": SceneMotion(right=0.045),
    "up": SceneMotion(down=-0.045),
    "down": SceneMotion(down=0.045),
    "clockwise": SceneMotion(turn=0.11),
    "counter-clockwise": SceneMotion(turn=-0.11),
    "grow": SceneMotion(growth=0.055),
    "shrink": SceneMotion(growth=-0.055),
}
"""The classes, each beside its opposite."""


@dataclass(frozen=True)
class Look:
    """How scenes look, in shares of a scene: one shape about every 1 / `rows`, its radius, how much a frame shows.

    `speed` is a factor on the motion and `zoom` the largest logarithm of a scene's size, both drawn for each video.
    """

    rows: int = 3
    radius: tuple[float, float] = (0.10, 0.19)
    shown: float = 0.3125
    speed: tuple[float, float] = (0.7, 1.3)
    zoom: float = 0.4


def render(
    label: int, rng: np.random.Generator, *, frames: int, size: int, look: Look | None = None
) -> UInt8[np.ndarray, "T size size 3"]:
    """One clip of the class `label` (a place in `MOTIONS`); every draw comes from `rng`."""
    look = look or Look()
    motion = list(MOTIONS.values())[label]
    scene = _scene(rng, look)
    places = _camera(motion, rng, frames=frames, size=size, look=look)
    # One row more on every side, so that sampling is smooth where the scene repeats.
    ring = F.pad(scene[None], (0, 1, 0, 1), mode="circular")
    seen = F.grid_sample(ring, places[None], mode="bilinear", align_corners=True)[0]
    pixels = seen.unflatten(1, (frames, size)).permute(1, 2, 3, 0).mul(255.0).round_().clamp_(0.0, 255.0)
    return np.asarray(pixels.to(torch.uint8).contiguous())


def clip_of(seed: int, index: int, *, frames: int, size: int) -> UInt8[np.ndarray, "T size size 3"]:
    """Clip `index` of the set with this seed; its class is index modulo the number of classes."""
    return render(index % len(MOTIONS), generator(seed, index), frames=frames, size=size)


def _camera(
    motion: SceneMotion, rng: np.random.Generator, *, frames: int, size: int, look: Look
) -> Float[Tensor, "rows size 2"]:
    """Where in the scene each pixel of each frame lies, from -1 to 1 (x, y); frames below each other.

    The drawn place, turn and size are those of the middle frame, so growing and shrinking show the same sizes.
    """
    time = ((np.arange(frames) - (frames - 1) / 2) * rng.uniform(*look.speed)).astype(np.float32)
    size_factor = np.exp(-(rng.uniform(-look.zoom, look.zoom) + motion.growth * time))
    angle = rng.uniform(0, 2 * math.pi) + motion.turn * time
    middle = rng.uniform(0, 1, 2)
    axis = ((np.arange(size) - (size - 1) / 2) / size).astype(np.float32)
    x = axis[None, None, :] - motion.right * time[:, None, None]
    y = axis[None, :, None] - motion.down * time[:, None, None]
    scale = look.shown * size_factor[:, None, None]
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    across = scale * (cos * x + sin * y) + middle[0]
    below = scale * (-sin * x + cos * y) + middle[1]
    places = np.stack([across, below], -1, dtype=np.float32).reshape(frames * size, size, 2)
    return torch.from_numpy((places - np.floor(places)) * 2 - 1)


def _scene(rng: np.random.Generator, look: Look) -> Float[Tensor, "3 S S"]:
    """Soft shapes with shaded colours on a smooth ground; values in 0..1; repeats without a seam."""
    axis = np.arange(SCENE_PIXELS, dtype=np.float32) / SCENE_PIXELS
    canvas = _ground(rng, axis)
    # Near the corners of a lattice, so that no view is empty; in any order, for they may overlap.
    for cell in rng.permutation(look.rows**2):
        middle = (np.array(divmod(cell, look.rows)) + rng.uniform(-0.4, 0.4, 2)) / look.rows
        _paint_shape(canvas, rng, axis, middle, rng.uniform(*look.radius))
    return torch.from_numpy(canvas)


def _ground(rng: np.random.Generator, axis: Float[np.ndarray, " S"]) -> Float[np.ndarray, "3 S S"]:
    """Four long waves in each colour."""
    across, below = rng.integers(-2, 3, (2, 3, 4))
    phase = rng.uniform(0, 2 * math.pi, (3, 4))
    height = rng.normal(size=(3, 4)) * 0.3
    waves = np.exp(2j * math.pi * across[..., None] * axis) * (height * np.exp(1j * phase))[..., None]
    columns = np.exp(2j * math.pi * below[..., None] * axis)
    field = np.einsum("cky,ckx->cyx", columns, waves).real + 0.8 * rng.normal(size=(3, 1, 1))
    ground: Float[np.ndarray, "3 S S"] = (1 / (1 + np.exp(-field))).astype(np.float32)
    return ground


def _paint_shape(
    canvas: Float[np.ndarray, "3 S S"],
    rng: np.random.Generator,
    axis: Float[np.ndarray, " S"],
    middle: Float[np.ndarray, "2"],
    radius: float,
) -> None:
    """A blob with 2 to 5 bulges, its two colours changing into each other in bands."""
    bulges, depth = int(rng.integers(2, 6)), rng.uniform(0, 0.35)
    start, direction = rng.uniform(0, 2 * math.pi, 2)
    colours = rng.uniform(0, 1, (2, 3)).astype(np.float32)
    x = ((axis - middle[0] + 0.5) % 1.0 - 0.5).astype(np.float32)
    y = ((axis - middle[1] + 0.5) % 1.0 - 0.5).astype(np.float32)
    reach = radius * (1 + depth) + 0.06
    columns, rows = np.flatnonzero(np.abs(x) < reach), np.flatnonzero(np.abs(y) < reach)
    x, y = x[columns][None, :], y[rows][:, None]
    distance = np.hypot(x, y)
    edge = radius * (1 + depth * np.cos(bulges * np.arctan2(y, x) + start))
    inside = 1 / (1 + np.exp(np.clip((distance - edge) / 0.012, -30, 30)))
    band = 0.5 + 0.5 * np.sin(2.2 * (math.cos(direction) * x + math.sin(direction) * y) / radius + start)
    shape = colours[0][:, None, None] * band + colours[1][:, None, None] * (1 - band)
    where = (slice(None), rows[:, None], columns[None, :])
    canvas[where] += inside * (shape - canvas[where])
