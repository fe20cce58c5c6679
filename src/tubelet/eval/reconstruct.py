"""What a pre-trained model makes of a video: original, what it saw, and what it filled in or predicted."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from tubelet.eval.glyphs import glyphs
from tubelet.methods.masked import MaskedMethod
from tubelet.nn.pixels import all_cubes, join_cubes
from tubelet.recipe import PretrainRecipe, override
from tubelet.rng import generator
from tubelet.targets.frozen import Asked, FrozenSpec
from tubelet.targets.hog import Hog
from tubelet.targets.pixels import (
    NormalisedPixels,
    Pixels,
    Statistics,
    coloured,
    colours,
    from_rows,
    statistics,
    to_cubes,
)
from tubelet.types import Cube, Grid, Mask, Split
from tubelet.video.crops import test_crops
from tubelet.video.read import BadVideo, open_video
from tubelet.weights.read import read_model

GREY: Final = 128.0
NEIGHBOURS: Final = 4
FROM_SEEN: Final = "colours of hidden cubes from the nearest seen ones"
FROM_TRUTH: Final = "colours of hidden cubes from the original (true mean and deviation)"
CANNOT_DRAW: Final = "reconstruct draws pixels and hog, not the target"
AS_PREDICTED: Final = "colours as predicted"
AS_LINES: Final = "lines along edges: bright in hidden cubes, faint where the model saw the video"
GLYPH_PIXELS: Final = 16
"""Smallest cell in which lines can be told apart."""
FAINT: Final = 0.35


@dataclass(frozen=True)
class Reconstruction:
    """Clips of equal size, how the colours of the last were found, and the loss of the clip.

    `truth` is what the prediction is held against where that is not the original itself: histograms drawn as lines.
    """

    original: UInt8[np.ndarray, "T H W 3"]
    masked: UInt8[np.ndarray, "T H W 3"]
    reconstructed: UInt8[np.ndarray, "T H W 3"]
    note: str
    hidden_ratio: float
    loss: float
    truth: UInt8[np.ndarray, "T H W 3"] | None = None


@dataclass(frozen=True)
class SavedAutoencoder:
    """A pre-trained run as it lies on disk: the method in eval mode on the CPU, its recipe and the file."""

    method: MaskedMethod
    recipe: PretrainRecipe
    weights: Path


class _Drawn(NamedTuple):
    """What was filled in, what it should be if that is not the original, and how much larger than the clip both are."""

    picture: UInt8[np.ndarray, "T H W 3"]
    note: str
    truth: UInt8[np.ndarray, "T H W 3"] | None = None
    factor: int = 1


def load_autoencoder(run: Path, changes: list[str] | None = None) -> SavedAutoencoder:
    """Read a pre-trained model of any origin (a run, a checkpoint, a released file) with changes to its recipe.

    ValueError where there is none, or it predicts no pixels.
    """
    imported = read_model(run)
    if not isinstance(imported.recipe, PretrainRecipe):
        raise ValueError(
            f"{run}: a {imported.recipe.kind} model has no decoder; give the pre-training run it started from"
        )
    recipe = override(imported.recipe, changes or [])
    if isinstance(recipe.target, FrozenSpec):
        raise ValueError(f"{run}: {CANNOT_DRAW} {recipe.target.kind}")
    changed = dataclasses.replace(imported, recipe=recipe)
    method = changed.build_predictor() if imported.predicts else changed.build_autoencoder()
    return SavedAutoencoder(method, recipe, imported.file)


def reconstruct(
    video: Path, saved: SavedAutoencoder, *, seed: int = 0, true_statistics: bool = False
) -> Reconstruction:
    """Reconstruct the middle clip of a video with the mask rule of the run's recipe.

    ValueError where the video cannot be read.
    """
    recipe = saved.recipe
    try:
        with open_video(video) as file:
            places = recipe.data.sampler.views(len(file), recipe.clip.frames, 1)[0]
            frames = file.frames(places)
    except BadVideo as error:
        raise ValueError(str(error)) from error
    clip = test_crops(frames, recipe.clip.size, 1)
    grid = saved.method.grid
    rng = generator(seed)
    hidden = recipe.mask(grid, rng)
    mask = Mask(torch.from_numpy(hidden)[None], torch.from_numpy(recipe.decode(grid, hidden, rng))[None])
    return reconstruct_clip(saved.method, clip, mask, true_statistics=true_statistics)


@torch.no_grad()
def reconstruct_clip(
    method: MaskedMethod, clip: UInt8[Tensor, "1 C T H W"], mask: Mask, *, true_statistics: bool = False
) -> Reconstruction:
    """Predict the wanted cubes of one clip and paint them; seen cubes stay as they are, others are grey.

    A normalised prediction says nothing of a cube's mean and deviation. They come from the nearest seen cubes, so the
    picture holds nothing that the model did not see; `true_statistics` takes those of the hidden cube itself, as the
    authors' script does, which looks better than the model is. Of `Hog` both truth and prediction are drawn as lines,
    and everything is enlarged. ValueError for a target that cannot be drawn.
    """
    if isinstance(method.target, Asked):
        raise ValueError(f"{CANNOT_DRAW} {method.target.kind}")
    cube, grid, split = method.cube, method.grid, mask.split()
    predicted = method.predict(clip, split)
    loss = method.target.loss(predicted, method.target.rows(clip, split.wanted, cube), split.weight)
    if isinstance(method.target, Hog):
        drawn = _lines(method.target, clip, mask, predicted.float(), cube=cube)
    else:
        drawn = _pixels(method, clip, mask, predicted, true_statistics=true_statistics)
    return Reconstruction(
        original=_enlarged(_frames(clip.float()), drawn.factor),
        masked=_enlarged(_frames(join_cubes(_with_grey(clip, mask, cube), grid)), drawn.factor),
        reconstructed=drawn.picture,
        note=drawn.note,
        hidden_ratio=float(mask.hidden.float().mean()),
        loss=float(loss),
        truth=drawn.truth,
    )


def nearest_seen(split: Split, grid: Grid) -> tuple[Int[Tensor, "K near"], Float[Tensor, "K near"]]:
    """For each wanted token of one clip, rows of the nearest seen tokens and their weights, which sum to 1.

    Distance in cubes over time, height and width; weight is one over its square.
    """
    where = torch.stack(torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij"), -1).flatten(0, 2).double()
    distance = torch.cdist(where[split.wanted[0]], where[split.seen[0]])
    near, rows = distance.topk(min(NEIGHBOURS, distance.shape[1]), largest=False)
    weight = 1.0 / near.clamp_min(0.5).square()
    return rows, (weight / weight.sum(1, keepdim=True)).float()


def _pixels(
    method: MaskedMethod,
    clip: UInt8[Tensor, "1 C T H W"],
    mask: Mask,
    predicted: Float[Tensor, "1 K P"],
    *,
    true_statistics: bool,
) -> _Drawn:
    cube, grid, split = method.cube, method.grid, mask.split()
    if isinstance(method.target, NormalisedPixels):
        given = _true(clip, split, cube) if true_statistics else _from_seen(clip, split, cube, grid=grid)
        pixels, note = coloured(predicted, given), FROM_TRUTH if true_statistics else FROM_SEEN
    elif isinstance(method.target, Pixels):
        pixels, note = from_rows(predicted, channels=3) * 255.0, AS_PREDICTED
    else:
        raise ValueError(f"{CANNOT_DRAW} {method.target.kind}")
    painted = _paint(_with_grey(clip, mask, cube), to_cubes(pixels, cube), mask)
    return _Drawn(_frames(join_cubes(painted, grid)), note)


def _lines(
    target: Hog, clip: UInt8[Tensor, "1 C T H W"], mask: Mask, predicted: Float[Tensor, "1 K P"], *, cube: Cube
) -> _Drawn:
    """Truth and prediction in the same light. Hidden cubes that nothing was predicted for stay black."""
    grid = Grid(*mask.hidden.shape[1:])
    everything = torch.arange(grid.tokens, device=clip.device).unsqueeze(0)
    hidden = mask.hidden.flatten(1).unsqueeze(2)
    true = target.rows(clip, everything, cube) * torch.where(hidden, 1.0, FAINT)
    filled = _paint(torch.where(hidden, 0.0, true), predicted, mask)
    factor = -(-GLYPH_PIXELS // target.cell)
    full = max(float(true.max()), 1e-12)
    shown = [
        _frames(glyphs(target.maps(rows, grid, cube)[0], target.cell * factor, full=full).transpose(0, 1).unsqueeze(0))
        for rows in (true, filled)
    ]
    truth, picture = (np.repeat(clip_of_lines, clip.shape[2] // len(clip_of_lines), axis=0) for clip_of_lines in shown)
    return _Drawn(picture, AS_LINES, truth, factor)


def _enlarged(frames: UInt8[np.ndarray, "T H W 3"], factor: int) -> UInt8[np.ndarray, "T _ _ 3"]:
    return frames.repeat(factor, axis=1).repeat(factor, axis=2)


def _from_seen(clip: UInt8[Tensor, "1 C T H W"], split: Split, cube: Cube, *, grid: Grid) -> Statistics:
    rows, weight = nearest_seen(split, grid)
    seen = statistics(colours(clip, split.seen, cube))
    mean, deviation = ((part[0][rows] * weight[..., None, None]).sum(1)[None] for part in seen)
    return Statistics(mean, deviation)


def _true(clip: UInt8[Tensor, "1 C T H W"], split: Split, cube: Cube) -> Statistics:
    return statistics(colours(clip, split.wanted, cube))


def _with_grey(clip: UInt8[Tensor, "1 C T H W"], mask: Mask, cube: Cube) -> Float[Tensor, "1 N C f p q"]:
    cubes = all_cubes(clip, cube).float()
    return torch.where(_column(mask.hidden), GREY, cubes)


def _column(hidden: Bool[Tensor, "1 t h w"]) -> Bool[Tensor, "1 N 1 1 1 1"]:
    return hidden.flatten(1)[:, :, None, None, None, None]


def _paint(
    cubes: Float[Tensor, "1 N *cube"], predicted: Float[Tensor, "1 K *cube"], mask: Mask
) -> Float[Tensor, "1 N *cube"]:
    """Predictions into their places, except where the encoder saw the cube."""
    painted = cubes.clone()
    wanted = mask.split().wanted[0]
    hidden = mask.hidden.flatten()[wanted]
    painted[0, wanted[hidden]] = predicted[0, hidden]
    return painted


def _frames(video: Float[Tensor, "1 C T H W"]) -> UInt8[np.ndarray, "T H W C"]:
    return np.asarray(video[0].clamp(0.0, 255.0).round().byte().permute(1, 2, 3, 0))
