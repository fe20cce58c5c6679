"""What a pre-trained model makes of a video: original, what it saw, and what it filled in."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from tubelet.methods.autoencoder import MaskedAutoencoder
from tubelet.methods.predictor import MaskedPredictor
from tubelet.nn.pixels import all_cubes, join_cubes
from tubelet.recipe import PretrainRecipe, override
from tubelet.rng import generator
from tubelet.targets.pixels import NormalisedPixels, Statistics, coloured, colours, from_rows, statistics, to_cubes
from tubelet.types import Cube, Grid, Mask, Split
from tubelet.video.crops import test_crops
from tubelet.video.read import BadVideo, open_video
from tubelet.weights.read import read_model

GREY: Final = 128.0
NEIGHBOURS: Final = 4
FROM_SEEN: Final = "colours of hidden cubes from the nearest seen ones"
FROM_TRUTH: Final = "colours of hidden cubes from the original (true mean and deviation)"
AS_PREDICTED: Final = "colours as predicted"

Masked = MaskedAutoencoder | MaskedPredictor
"""Methods that predict hidden tokens."""


@dataclass(frozen=True)
class Reconstruction:
    """Three clips of equal size, how the colours of the third were found, and the loss of the clip."""

    original: UInt8[np.ndarray, "T H W 3"]
    masked: UInt8[np.ndarray, "T H W 3"]
    reconstructed: UInt8[np.ndarray, "T H W 3"]
    note: str
    hidden_ratio: float
    loss: float


@dataclass(frozen=True)
class SavedAutoencoder:
    """A pre-trained run as it lies on disk: the method in eval mode on the CPU, its recipe and the file."""

    method: Masked
    recipe: PretrainRecipe
    weights: Path


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
    method: Masked, clip: UInt8[Tensor, "1 C T H W"], mask: Mask, *, true_statistics: bool = False
) -> Reconstruction:
    """Predict the wanted cubes of one clip and paint them; seen cubes stay as they are, others are grey.

    A normalised prediction says nothing of a cube's mean and deviation. They come from the nearest seen cubes, so the
    picture holds nothing that the model did not see; `true_statistics` takes those of the hidden cube itself, as the
    authors' script does, which looks better than the model is.
    """
    cube, grid, split = method.cube, method.grid, mask.split()
    predicted = method.predict(clip, split)
    loss = method.target.loss(predicted, method.target.rows(clip, split.wanted, cube), split.weight)
    if isinstance(method.target, NormalisedPixels):
        given = _true(clip, split, cube) if true_statistics else _from_seen(clip, split, cube, grid=grid)
        pixels, note = coloured(predicted, given), FROM_TRUTH if true_statistics else FROM_SEEN
    else:
        pixels, note = from_rows(predicted, channels=3) * 255.0, AS_PREDICTED
    masked = _with_grey(clip, mask, cube)
    return Reconstruction(
        original=_frames(clip.float()),
        masked=_frames(join_cubes(masked, grid)),
        reconstructed=_frames(join_cubes(_paint(masked, to_cubes(pixels, cube), mask), grid)),
        note=note,
        hidden_ratio=float(mask.hidden.float().mean()),
        loss=float(loss),
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
    cubes: Float[Tensor, "1 N C f p q"], predicted: Float[Tensor, "1 K C f p q"], mask: Mask
) -> Float[Tensor, "1 N C f p q"]:
    """Predictions into their places, except where the encoder saw the cube."""
    painted = cubes.clone()
    wanted = mask.split().wanted[0]
    hidden = mask.hidden.flatten()[wanted]
    painted[0, wanted[hidden]] = predicted[0, hidden]
    return painted


def _frames(video: Float[Tensor, "1 C T H W"]) -> UInt8[np.ndarray, "T H W C"]:
    return np.asarray(video[0].clamp(0.0, 255.0).round().byte().permute(1, 2, 3, 0))
