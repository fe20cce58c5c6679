"""What a pre-trained model makes of a video: original, what it saw, and what it filled in or predicted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Num, UInt8
from torch import Tensor

from tubelet.masks import HasMaskRules, choose_decoded, draw_mask
from tubelet.methods.masked import MaskedMethod
from tubelet.nn.pixels import all_cubes, join_cubes
from tubelet.pictures.glyphs import glyphs
from tubelet.recipe import PretrainRecipe, override
from tubelet.rng import generator, step_rng
from tubelet.targets.base import Picture
from tubelet.targets.hog import Hog, Norm
from tubelet.targets.pixels import PixelTarget, Statistics, colours, to_cubes
from tubelet.targets.unions import Target
from tubelet.types import Cube, Grid, Mask, Split
from tubelet.video.augment.crops import test_crops
from tubelet.video.lists.manifest import refuse_image
from tubelet.video.read.file import BadVideo, open_video
from tubelet.weights.read import read_model

GREY: Final = 128.0
NEIGHBOURS: Final = 4
FROM_SEEN: Final = "colours of hidden cubes from the nearest seen ones"
FROM_TRUTH: Final = "colours of hidden cubes from the original (true mean and deviation)"
AS_PREDICTED: Final = "colours as predicted"
AS_LINES: Final = "lines along edges: bright in hidden cubes, faint where the model saw the video"
GLYPH_PIXELS: Final = 16
"""Smallest cell in which lines can be told apart."""
FAINT: Final = 0.35
FULL: Final[dict[Norm, float]] = {"cell": 1.0, "block2": 0.5, "block2_clipped": 0.5, "none": 1.0}
"""What is drawn white, whatever the clip: an edge alone in its cell, in each cell of a block, of `hog.STD`."""
EDGE_BINS: Final = 18
"""Where there are more, the votes of an edge are in several, each of which is smaller by the root of how many."""


@dataclass(frozen=True)
class Reconstruction:
    """Clips of equal size, how the colours of the last were found, and the loss of the clip.

    `truth` is what the prediction is held against where that is not the original itself: histograms drawn as lines.
    `predicted_frames` are those that the target is of; the others repeat the picture of theirs.
    """

    original: UInt8[np.ndarray, "T H W 3"]
    masked: UInt8[np.ndarray, "T H W 3"]
    reconstructed: UInt8[np.ndarray, "T H W 3"]
    note: str
    hidden_ratio: float
    loss: float
    predicted_frames: tuple[int, ...]
    truth: UInt8[np.ndarray, "T H W 3"] | None = None


@dataclass(frozen=True)
class SavedAutoencoder:
    """A pre-trained run as it lies on disk: the method in eval mode on the CPU, its recipe and the file."""

    method: MaskedMethod
    recipe: PretrainRecipe
    weights: Path


class _Drawn(NamedTuple):
    """What was filled in, what it should be if that is not the original, and how much larger than the clip both are.

    Both have only the frames that the target is of.
    """

    picture: UInt8[np.ndarray, "F H W 3"]
    note: str
    frames: range
    truth: UInt8[np.ndarray, "F H W 3"] | None = None
    factor: int = 1


def load_autoencoder(run: Path, changes: list[str] | None = None) -> SavedAutoencoder:
    """Read a pre-trained model of any origin (a run, a checkpoint, a released file) with changes to its recipe.

    ValueError where there is none, or what it predicts cannot be drawn.
    """
    imported = read_model(run)
    if not isinstance(imported.recipe, PretrainRecipe):
        raise ValueError(
            f"{run}: a {imported.recipe.kind} model has no decoder; give the pre-training run it started from"
        )
    recipe = override(imported.recipe, changes or [])
    if recipe.target.picture is None:
        raise ValueError(f"{run}: {cannot_draw(recipe.target.kind)}")
    changed = dataclasses.replace(imported, recipe=recipe)
    method = changed.build_predictor() if imported.predicts else changed.build_autoencoder()
    return SavedAutoencoder(method, recipe, imported.file)


def cannot_draw(kind: str) -> str:
    """Why not, and what can be done."""
    return (
        f"reconstruct draws pixels and hog, not the target {kind}; "
        "give a run that was trained with target=normalised_pixels or target=hog"
    )


def takes_statistics(target: Target) -> bool:
    """Whether a prediction lacks the colours of its cube, so that `true_statistics` has something to do."""
    return target.lacks_colours


def reconstruct(
    video: Path, saved: SavedAutoencoder, *, seed: int = 0, true_statistics: bool = False
) -> Reconstruction:
    """Reconstruct the middle clip of a video with the mask rule of the run's recipe.

    ValueError where the video cannot be read, or is an image and the model takes clips.
    """
    recipe = saved.recipe
    if recipe.clip.frames > 1:
        refuse_image(video, str(video))
    try:
        with open_video(video) as file:
            places = recipe.data.sampler.views(len(file), recipe.clip.frames, 1)[0]
            frames = file.frames(places)
    except BadVideo as error:
        raise ValueError(str(error)) from error
    clip = test_crops(frames, recipe.clip.size, 1)
    mask = mask_of(recipe, saved.method, clip, seed=seed)
    return reconstruct_clip(saved.method, clip, mask, true_statistics=true_statistics)


def mask_of(recipe: HasMaskRules, method: MaskedMethod, clip: Num[Tensor, "1 C T H W"], *, seed: int) -> Mask:
    """The mask of a clip, on its device, by the rules of a recipe and a seed."""
    drawn = draw_mask(recipe, method.grid, generator(seed)).to(clip.device)
    with step_rng(seed, 0):
        return choose_decoded(recipe.decode, drawn, clip, method.cube)


@torch.no_grad()
def reconstruct_clip(
    method: MaskedMethod, clip: UInt8[Tensor, "1 C T H W"], mask: Mask, *, true_statistics: bool = False
) -> Reconstruction:
    """Predict the wanted cubes of one clip and paint them; seen cubes stay as they are, others are grey.

    A normalised prediction says nothing of a cube's mean and std. They come from the nearest seen cubes, so the
    picture holds nothing that the model did not see; `true_statistics` takes those of the hidden cube itself, as the
    authors' script does, which looks better than the model is. Of `Hog` both truth and prediction are drawn as lines,
    and everything is enlarged. ValueError for a target that cannot be drawn, and for `true_statistics` of one that
    takes none.
    """
    target = method.target.shown
    if target.picture is None:
        raise ValueError(cannot_draw(target.kind))
    if true_statistics and not target.lacks_colours:
        raise ValueError(f"true_statistics gives colours to normalised pixels, not to the target {target.kind}")
    cube, grid, split = method.cube, method.grid, mask.split()
    predicted = method.predict(clip, split)[..., method.target.shown_columns]
    loss = target.loss(predicted, target.rows(clip, split.wanted, cube), split.weight)
    drawn = PAINTERS[target.picture](_Scene(target, clip, mask, cube, grid, true_statistics), predicted)
    each = clip.shape[2] // len(drawn.frames)
    return Reconstruction(
        original=_enlarged(_frames(clip.float()), drawn.factor),
        masked=_enlarged(_frames(join_cubes(_with_grey(clip, mask, cube), grid)), drawn.factor),
        reconstructed=drawn.picture.repeat(each, axis=0),
        note=drawn.note,
        hidden_ratio=float(mask.hidden.float().mean()),
        loss=float(loss),
        predicted_frames=tuple(drawn.frames),
        truth=None if drawn.truth is None else drawn.truth.repeat(each, axis=0),
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


class _Scene(NamedTuple):
    """What a prediction is drawn into: the clip, what was hidden of it, and the grid of its cubes."""

    target: Any
    clip: UInt8[Tensor, "1 C T H W"]
    mask: Mask
    cube: Cube
    grid: Grid
    true_statistics: bool


def _pixels(scene: _Scene, predicted: Float[Tensor, "1 K P"]) -> _Drawn:
    """Pixels in their places; where a prediction lacks colours, they are found first."""
    target: PixelTarget = scene.target
    cube, mask = target.drawn(scene.cube), scene.mask
    frames = range(scene.clip.shape[2])[:: scene.cube.frames // cube.frames]
    clip = scene.clip[:, :, :: frames.step]
    note, given = AS_PREDICTED, None
    if target.lacks_colours:
        note = FROM_TRUTH if scene.true_statistics else FROM_SEEN
        given = _statistics(target, clip, mask.split(), cube, grid=None if scene.true_statistics else scene.grid)
    painted = _paint(_with_grey(clip, mask, cube), to_cubes(target.coloured(predicted, given), cube), mask)
    return _Drawn(_frames(join_cubes(painted, scene.grid)), note, frames)


def _lines(scene: _Scene, predicted: Float[Tensor, "1 K P"]) -> _Drawn:
    """Truth and prediction in the same light. Hidden cubes that nothing was predicted for stay black."""
    target: Hog = scene.target
    clip, mask, cube, grid = scene.clip, scene.mask, scene.cube, scene.grid
    everything = torch.arange(grid.tokens, device=clip.device).unsqueeze(0)
    hidden = mask.hidden.flatten(1).unsqueeze(2)
    full = FULL[target.norm] * min(1.0, (EDGE_BINS / target.bins) ** 0.5)
    true = target.rows(clip, everything, cube) * torch.where(hidden, 1.0, FAINT)
    filled = _paint(torch.where(hidden, 0.0, true), predicted.float(), mask)
    factor = -(-GLYPH_PIXELS // target.cell)
    truth, picture = (
        np.concatenate(
            [
                _frames(glyphs(frame, target.cell * factor, full=full).transpose(0, 1).unsqueeze(0))
                for frame in target.maps(rows, grid, cube)[0].split(1)
            ]
        )
        for rows in (true, filled)
    )
    return _Drawn(picture, AS_LINES, target.numbers(clip.shape[2], cube), truth, factor)


PAINTERS: Final[dict[Picture, Callable[[_Scene, Tensor], _Drawn]]] = {"pixels": _pixels, "lines": _lines}
"""How each kind of picture is drawn: of a `PixelTarget`, and of a target with the methods of `Hog`."""


def _enlarged(frames: UInt8[np.ndarray, "T H W 3"], factor: int) -> UInt8[np.ndarray, "T _ _ 3"]:
    return frames.repeat(factor, axis=1).repeat(factor, axis=2)


def _statistics(
    target: PixelTarget,
    clip: UInt8[Tensor, "1 C T H W"],
    split: Split,
    cube: Cube,
    *,
    grid: Grid | None,
) -> Statistics:
    """Of the wanted cubes: from the nearest seen ones in this grid, or the true ones where there is no grid."""
    if grid is None:
        return target.statistics(colours(clip, split.wanted, cube))
    rows, weight = nearest_seen(split, grid)
    mean, std = (
        (part[0][rows] * weight[..., None, None]).sum(1)[None]
        for part in target.statistics(colours(clip, split.seen, cube))
    )
    return Statistics(mean, std)


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
