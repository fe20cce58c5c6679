"""Our Video Swin is the authors': golden cases 07, built from their metadata (docs of the cases: shared/golden)."""

from __future__ import annotations

import pytest
import torch
from plain_swin import Weights, fused
from swin import build_classifier, build_streams, gradients, spec_of
from torch import Tensor, nn
from torch.nn import functional as F

from golden import Case, assert_grad_norms, assert_output, load_case
from tubelet.methods.classifier import Classifier
from tubelet.models.swin.layers import PatchEmbed, PatchMerging
from tubelet.models.swin.model import Swin
from tubelet.nn.windows import GridWindows, WindowRule
from tubelet.types import Grid
from tubelet.weights.swin.names import BEVT_ENCODER, BEVT_IMAGE_EMBEDDING, CLASSIFIER, without_fixed
from tubelet.weights.tensors.rename import to_official

STREAMS = ["video", "image"]
Streams = tuple[Swin, PatchEmbed]


@pytest.fixture(scope="module")
def case() -> Case:
    return load_case("case07_videoswin")


@pytest.fixture(scope="module")
def bevt() -> Case:
    return load_case("case07_bevt_pretrain")


def rules_alike(case: Case) -> list[WindowRule]:
    """Both rules, unless a window is clamped down or across: there the authors read rows of other places."""
    spec = spec_of(case.meta["config"]["backbone"], "released")
    sides = [-(-side // step) for side, step in zip(case.input["video"].shape[2:], spec.patch_cube, strict=True)]
    grids = spec.stage_grids(Grid(*sides))
    clamped = any(grid.h < spec.window[1] or grid.w < spec.window[2] for grid in grids)
    return ["released"] if clamped else ["released", "clamped"]


def test_stages_features_logits_loss_and_gradients(case: Case) -> None:
    for rule in rules_alike(case):
        compare(case, build_classifier(case, rule))


def compare(case: Case, classifier: Classifier) -> None:
    encoder = classifier.encoder
    assert isinstance(encoder, Swin)
    video = encoder.normalise.inverse(case.input["video"])
    found: list[Tensor] = []
    merges = [module for module in encoder.modules() if isinstance(module, PatchMerging)]
    hooks = [merge.register_forward_hook(lambda _module, _inputs, output: found.append(output)) for merge in merges]
    tokens = encoder.stage_tokens(video)[-1]
    for hook in hooks:
        hook.remove()
    for stage, given in enumerate([*found, tokens]):
        assert_output(case, f"stage{stage}", as_volume(given, case.output[f"stage{stage}"]))
    normed = encoder.norm(tokens)
    assert_output(case, "features", as_volume(normed, case.output["features"]))
    logits = classifier.head(classifier.pooled(normed))
    assert_output(case, "logits", logits)
    loss = F.cross_entropy(logits, case.input["label"])
    assert_output(case, "loss", loss)
    classifier.zero_grad()
    loss.backward()
    assert_grad_norms(case, gradients(classifier, CLASSIFIER))


def as_volume(tokens: Tensor, like: Tensor) -> Tensor:
    """Their order of axes: [B,C,t,h,w]."""
    return tokens.mT.reshape(like.shape)


def test_every_weight_goes_out_under_their_name(case: Case) -> None:
    back = to_official(build_classifier(case, "released").state_dict(), CLASSIFIER)
    weights = without_fixed(case.weight)
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weights[name]) for name in back)


def test_their_indices_are_ours(case: Case) -> None:
    spec = spec_of(case.meta["config"]["backbone"], "released")
    found = [module for module in build_classifier(case, "released").modules() if isinstance(module, GridWindows)]
    assert len(found) == len(spec.stages) + 1
    for stage, window in enumerate(found):
        theirs = case.weight[f"backbone.layers.{stage}.blocks.0.attn.relative_position_index"]
        assert len(theirs) == spec.window[0] * spec.window[1] * spec.window[2]
        length = len(window.rows)
        assert torch.equal(window.rows, theirs[:length, :length])


# BEVT: the backbone's two streams; what its release puts behind them is written out plainly in `plain_swin`


def features_of(bevt: Case, streams: Streams, stream: str, *, masked: bool, weights: Weights) -> Tensor:
    encoder, image = streams
    pixels, hidden = bevt.input[stream], bevt.input[f"{stream}_mask"].bool()
    if stream == "image":
        pixels, hidden = pixels.unsqueeze(2), hidden.unsqueeze(1)
    embed = encoder.patch_embed if stream == "video" else image
    video = encoder.normalise.inverse(pixels)
    stages = encoder.stage_tokens(video, hidden=hidden if masked else None, embed=embed)
    grids = encoder.spec.stage_grids(embed.grid_of(video))
    fine, coarse = (tokens.unflatten(1, tuple(grid)) for tokens, grid in zip(stages[-2:], grids[-2:], strict=True))
    frames = video.shape[2] if stream == "video" else 0
    return fused(weights, encoder.norm, fine, coarse, frames=frames)


def behind_backbone(weights: Weights) -> Weights:
    return {name.removeprefix("backbone."): value for name, value in weights.items()}


@pytest.mark.parametrize("masked", [True, False], ids=["masked", "unmasked"])
@pytest.mark.parametrize("stream", STREAMS)
def test_both_streams_of_bevt(bevt: Case, stream: str, masked: bool) -> None:
    features = features_of(bevt, build_streams(bevt), stream, masked=masked, weights=behind_backbone(bevt.weight))
    allowed = bevt.tolerance(f"{stream}_features")
    wanted = bevt.output[f"{stream}_features" if masked else f"{stream}_features_unmasked"]
    torch.testing.assert_close(features.detach(), wanted, atol=allowed["atol"], rtol=allowed["rtol"])


def test_losses_and_gradients_of_both_streams_of_bevt(bevt: Case) -> None:
    streams = build_streams(bevt)
    encoder, image = streams
    behind = {name: value.clone().requires_grad_() for name, value in bevt.weight.items() if is_behind(name)}
    named, loss = behind_backbone(behind), torch.zeros(())
    for stream in STREAMS:
        features = features_of(bevt, streams, stream, masked=True, weights=named)
        logits = F.linear(features, named["cls_head.lm_head.weight"], named["cls_head.lm_head.bias"])
        assert_output(bevt, f"{stream}_logits", logits)
        ids, hidden = bevt.output[f"{stream}_token_ids"], bevt.input[f"{stream}_mask"].bool()
        rows = hidden.repeat_interleave(ids.shape[1] // hidden.shape[1], dim=1).flatten(1)
        factor = bevt.meta["config"]["head"]["loss_weight_3d" if stream == "video" else "loss_weight_2d"]
        part = factor * F.cross_entropy(logits[rows], ids.flatten(1)[rows])
        assert_output(bevt, f"loss_{stream}", part)
        loss = loss + part
    assert_output(bevt, "loss", loss)
    loss.backward()
    found = gradients(encoder, BEVT_ENCODER)
    flat = {name: value.squeeze(2) if name == "weight" else value for name, value in image_gradients(image).items()}
    found |= to_official(flat, BEVT_IMAGE_EMBEDDING)
    found |= {name: value.grad for name, value in behind.items() if value.grad is not None}
    assert_grad_norms(bevt, found)


def image_gradients(image: nn.Module) -> dict[str, Tensor]:
    return {name: value.grad for name, value in image.named_parameters() if value.grad is not None}


def is_behind(name: str) -> bool:
    """Whether a weight is of BEVT's decoder or head."""
    return name.startswith(("backbone.fpn", "backbone.lm_down", "cls_head.lm_head"))
