"""Our HOG is the authors': golden cases 05 (layer, target) and 06 (MaskFeat's target), built from their metadata.

Values with a pixel on the edge of two bins are left out, as the metadata asks: rounding decides them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from golden import Case, assert_output, load_case
from tubelet.nn.pixels import grid_of
from tubelet.targets.hog import Hog
from tubelet.types import Cube, Grid

TOLERANCE = 1e-5
"""What the metadata of case 05 state in words."""


def as_given(video: Tensor) -> Tensor:
    """HOG does not see a scale or an offset, so the authors' normalised values will do."""
    return video


def as_pixels(video: Tensor) -> Tensor:
    return (video * 0.225 + 0.45) * 255.0


scales = pytest.mark.parametrize("scale", [as_given, as_pixels])


def assert_close_where_sure(ours: Tensor, theirs: Tensor, risk: Tensor) -> None:
    sure = risk == 0
    assert sure.float().mean() > 0.5
    torch.testing.assert_close(ours[sure], theirs[sure], atol=TOLERANCE, rtol=TOLERANCE)


# Case 05: the layer


def layer_spec(layer: dict[str, Any]) -> Hog:
    known = {"nbins", "pool", "gaussian_window"}
    assert layer.keys() <= known, f"options that this test does not know: {layer.keys() - known}"
    return Hog(bins=layer["nbins"], cell=layer["pool"], window=layer.get("gaussian_window") or None)


@scales
def test_layer(scale: Callable[[Tensor], Tensor]) -> None:
    case = load_case("case05_hog_layer")
    compared = 0
    for name, theirs in case.output.items():
        if name.endswith("__edge_risk"):
            continue
        picture, layer = name.split("__")
        spec = layer_spec(case.meta["config"]["layers"][layer])
        side = math.lcm(spec.cell, spec.window or spec.cell)
        cube = Cube(1, side, side)
        video = scale(case.input[picture]).unsqueeze(2)
        grid = grid_of(video, cube)
        rows = spec.rows(video, torch.arange(grid.tokens).expand(len(video), -1), cube)
        maps = spec.maps(rows, grid, cube)[:, 0]
        risk = case.output[f"{name}__edge_risk"].unsqueeze(2).expand_as(theirs)
        assert_close_where_sure(maps, theirs, risk)
        compared += 1
    assert compared == len(case.output) // 2 > 0


# Cases 05 and 06: targets of masked tokens


def masked_rows(spec: Hog, video: Tensor, mask: Tensor, cube: Cube) -> Tensor:
    """Of the whole batch, as the authors concatenate them: raster order (b, t, h, w), counts differing by clip."""
    hidden = on_grid(mask, grid_of(video, cube)).flatten(1)
    most = int(hidden.sum(1).max())
    wanted = (~hidden).int().argsort(dim=1, stable=True)[:, :most]
    return spec.rows(video, wanted, cube)[hidden.gather(1, wanted)]


def on_grid(mask: Tensor, grid: Grid) -> Tensor:
    """Their mask may be coarser than the tokens: each of its cells is repeated."""
    hidden: Tensor = F.interpolate(mask.float(), size=(grid.h, grid.w), mode="nearest") > 0
    assert hidden.shape[1] == grid.t
    return hidden


@scales
def test_target(scale: Callable[[Tensor], Tensor]) -> None:
    case = load_case("case05_hog_target")
    config = case.meta["config"]
    spec = Hog(bins=config["nbins"], cell=config["cell"])
    cube = Cube(config["patch_stride_t"], config["token_size"], config["token_size"])
    rows = masked_rows(spec, scale(case.input["video"]), case.input["mask"], cube)
    assert_close_where_sure(rows, case.output["target"], case.output["edge_risk"])


def maskfeat_cube(case: Case) -> Cube:
    """Of the tokens at the output, as many as there are predictions."""
    *_, frames, height, width = case.input["video"].shape
    step = case.meta["config"]["resolved_MVIT"]["PATCH_STRIDE"][0]
    places = case.output["predictions_all_tokens"].shape[1] // (frames // step)
    side = math.isqrt(height * width // places)
    return Cube(step, side, side)


@scales
def test_maskfeat_target_and_loss(scale: Callable[[Tensor], Tensor]) -> None:
    case, spec = load_case("case06_maskfeat_hog"), Hog()
    rows = masked_rows(spec, scale(case.input["video"]), case.input["mask"], maskfeat_cube(case))
    assert_close_where_sure(rows, case.output["targets"], case.output["targets_edge_risk"])
    predictions, theirs = case.output["predictions"].unsqueeze(0), case.output["targets"].unsqueeze(0)
    loss = spec.loss(predictions, theirs, torch.ones(theirs.shape[:2]))
    assert_output(case, "loss", loss)
