"""Our MaskFeat is SlowFast's: golden cases 06 through the public predictor, built from metadata or read from a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from multiscale import WAYS, build_maskfeat, gradients, pixels_of, slowfast_file, spec_of, without_filters
from torch import Tensor

from golden import Case, assert_grad_norms, assert_output, load_case
from tubelet.methods.predictor import MaskedPredictor
from tubelet.recipe import PretrainRecipe
from tubelet.types import Grid, Mask, Split
from tubelet.weights.read import read_model
from tubelet.weights.slowfast.names import MASKFEAT
from tubelet.weights.start import encoder_weights
from tubelet.weights.tensors.rename import to_official

MASKED = ["case06_maskfeat_hog", "case06_maskmvit_pixel"]


@pytest.fixture(scope="module", params=MASKED)
def case(request: pytest.FixtureRequest) -> Case:
    return load_case(request.param)


@pytest.fixture(scope="module", params=WAYS)
def method(case: Case, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MaskedPredictor:
    return build_maskfeat(case, request.param, tmp_path_factory.mktemp("case06"))


def split_of(case: Case, grid: Grid) -> Split:
    """Their mask may be coarser than the tokens that come out: each of its cells is repeated."""
    hidden = case.input["mask"].bool()
    for axis, tokens in enumerate(grid, start=1):
        hidden = hidden.repeat_interleave(tokens // hidden.shape[axis], dim=axis)
    return Mask(hidden, hidden).split()


def scored(rows: Tensor, split: Split) -> Tensor:
    """Of the whole batch one after another, as the authors keep them."""
    return rows[split.weight.bool()]


def test_predictions_targets_loss_and_gradients(case: Case, method: MaskedPredictor) -> None:
    video, split = pixels_of(case, method.encoder), split_of(case, method.grid)
    predicted = method.predict(video, split)
    assert_output(case, "predictions", scored(predicted, split))
    target = method.target.rows(video, split.wanted, method.cube)
    ours, theirs = scored(target, split), case.output["targets"]
    sure = case.output.get("targets_edge_risk", torch.zeros_like(theirs)) == 0
    assert sure.float().mean() > 0.5
    torch.testing.assert_close(ours[sure], theirs[sure], atol=1e-5, rtol=1e-5)
    # a pixel between two bins is decided by rounding, so the loss is held against their targets
    given = target.clone()
    given[split.weight.bool()] = theirs
    loss = method.target.loss(predicted, given, split.weight)
    assert_output(case, "loss", loss)
    method.zero_grad()
    loss.backward()
    assert_grad_norms(case, gradients(method, MASKFEAT))


def test_every_token_is_predicted_alike(case: Case, method: MaskedPredictor) -> None:
    split = split_of(case, method.grid)
    assert split.hidden is not None
    everything = Mask(split.hidden, torch.ones_like(split.hidden)).split()
    predicted = method.predict(pixels_of(case, method.encoder), everything)
    allowed = case.tolerance("predictions")
    wanted = case.output["predictions_all_tokens"]
    torch.testing.assert_close(predicted.detach(), wanted, atol=allowed["atol"], rtol=allowed["rtol"])


def test_every_weight_goes_out_under_their_name(case: Case, method: MaskedPredictor) -> None:
    back = to_official(method.state_dict(), MASKFEAT)
    weights = without_filters(case.weight)
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weights[name]) for name in back)


def test_a_file_tells_the_whole_model(case: Case, tmp_path: Path) -> None:
    imported = read_model(slowfast_file(case, tmp_path))
    recipe = imported.recipe
    assert isinstance(recipe, PretrainRecipe)
    assert recipe.model.encoder == spec_of(case)
    assert imported.predicts
    assert recipe.target.kind == ("hog" if "hog" in case.meta["case"] else "frame_pixels")


def test_the_encoder_alone_is_read_too(case: Case, method: MaskedPredictor, tmp_path: Path) -> None:
    found, wanted = encoder_weights(slowfast_file(case, tmp_path)), method.encoder.state_dict()
    assert found.keys() == wanted.keys() - {"mask_token"}
    assert all(torch.equal(found[name], wanted[name]) for name in found)
