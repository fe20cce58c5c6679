"""Our Video Swin is the authors': golden cases 07, built from their metadata (docs of the cases: shared/golden)."""

from __future__ import annotations

import pytest
import torch
from swin import build_classifier, build_streams, gradients, spec_of
from torch import Tensor, nn
from torch.nn import functional as F

from golden import Case, assert_grad_norms, assert_output, load_case
from tubelet.methods.classifier import Classifier
from tubelet.nn.windows import WindowRule
from tubelet.types import Grid
from tubelet.weights.swin.names import BEVT_ENCODER, CLASSIFIER, without_fixed
from tubelet.weights.tensors.rename import to_official


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
    video = encoder.normalise.inverse(case.input["video"])
    found: list[Tensor] = []
    merges = [stage.merge for stage in encoder.stages if stage.merge is not None]
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
    windows = build_classifier(case, "released").encoder.windows
    spec = spec_of(case.meta["config"]["backbone"], "released")
    for stage, window in enumerate(windows):
        theirs = case.weight[f"backbone.layers.{stage}.blocks.0.attn.relative_position_index"]
        assert len(theirs) == spec.window[0] * spec.window[1] * spec.window[2]
        length = len(window.rows)
        assert torch.equal(window.rows, theirs[:length, :length])


# BEVT: the backbone's two streams, and what its release puts behind them, written out plainly here


def fused(weights: dict[str, Tensor], norm: nn.Module, fine: Tensor, coarse: Tensor, *, frames: int) -> Tensor:
    """Tokens of the finer of two stages, [B,C,t,h,w], with the last one upsampled: what the release predicts from.

    `frames` > 0 brings back the frames of a clip.
    """
    named = {name.removeprefix("backbone."): value for name, value in weights.items()}
    if frames:
        wide = F.conv_transpose3d(coarse, named["fpn_s.0.weight"], named["fpn_s.0.bias"], stride=(1, 2, 2))
        down = "lm_down_st.0"
    else:
        flat = F.conv_transpose2d(coarse[:, :, 0], named["fpn.0.weight"], named["fpn.0.bias"], stride=2)
        wide, down = flat.unsqueeze(2), "lm_down"
    both = torch.cat([fine, wide], dim=1).movedim(1, -1)
    joint = F.linear(both, named[f"{down}.weight"], named[f"{down}.bias"]).movedim(-1, 1)
    if frames:
        step = named["fpn_t.0.weight"].shape[2]
        joint = F.conv_transpose3d(joint, named["fpn_t.0.weight"], named["fpn_t.0.bias"], stride=(step, 1, 1))
        assert joint.shape[2] == frames
    normed: Tensor = norm(joint.movedim(1, -1))
    return normed.flatten(1, 3)


@pytest.mark.parametrize("masked", [True, False], ids=["masked", "unmasked"])
@pytest.mark.parametrize("stream", ["video", "image"])
def test_both_streams_of_bevt(bevt: Case, stream: str, masked: bool) -> None:
    encoder, image = build_streams(bevt)
    pixels = bevt.input[stream] if stream == "video" else bevt.input[stream].unsqueeze(2)
    hidden = bevt.input[f"{stream}_mask"].bool()
    hidden = hidden if stream == "video" else hidden.unsqueeze(1)
    video = encoder.normalise.inverse(pixels)
    embed = encoder.patch_embed if stream == "video" else image
    stages = encoder.stage_tokens(video, hidden=hidden if masked else None, embed=embed)
    grids = encoder.spec.stage_grids(embed.grid_of(video))
    fine, coarse = (
        tokens.mT.unflatten(2, tuple(grid)) for tokens, grid in zip(stages[-2:], grids[-2:], strict=True)
    )
    frames = video.shape[2] if stream == "video" else 0
    name = f"{stream}_features" if masked else f"{stream}_features_unmasked"
    features = fused(bevt.weight, encoder.norm, fine, coarse, frames=frames)
    allowed = bevt.tolerance(f"{stream}_features")
    torch.testing.assert_close(features.detach(), bevt.output[name], atol=allowed["atol"], rtol=allowed["rtol"])


def test_bevts_losses_and_the_gradients_of_what_streams_share(bevt: Case) -> None:
    encoder, image = build_streams(bevt)
    loss = torch.zeros(())
    for stream in ("video", "image"):
        pixels, hidden = bevt.input[stream], bevt.input[f"{stream}_mask"].bool()
        ids = bevt.output[f"{stream}_token_ids"]
        if stream == "image":
            pixels, hidden = pixels.unsqueeze(2), hidden.unsqueeze(1)
        video = encoder.normalise.inverse(pixels)
        embed = encoder.patch_embed if stream == "video" else image
        stages = encoder.stage_tokens(video, hidden=hidden, embed=embed)
        grids = encoder.spec.stage_grids(embed.grid_of(video))
        fine, coarse = (
            tokens.mT.unflatten(2, tuple(grid)) for tokens, grid in zip(stages[-2:], grids[-2:], strict=True)
        )
        frames = video.shape[2] if stream == "video" else 0
        features = fused(bevt.weight, encoder.norm, fine, coarse, frames=frames)
        logits = F.linear(features, bevt.weight["cls_head.lm_head.weight"], bevt.weight["cls_head.lm_head.bias"])
        allowed = bevt.tolerance(f"{stream}_logits")
        torch.testing.assert_close(
            logits.detach(), bevt.output[f"{stream}_logits"], atol=allowed["atol"], rtol=allowed["rtol"]
        )
        rows = hidden.repeat_interleave(frames // hidden.shape[1], dim=1) if frames else hidden
        weight = bevt.meta["config"]["head"]["loss_weight_3d" if stream == "video" else "loss_weight_2d"]
        part = weight * F.cross_entropy(logits[rows.flatten(1)], ids.reshape(len(ids), -1)[rows.flatten(1)])
        assert_output(bevt, f"loss_{stream}", part)
        loss = loss + part
    assert_output(bevt, "loss", loss)
    loss.backward()
    found = gradients(encoder, BEVT_ENCODER)
    norms = {name: value.norm() for name, value in found.items()}
    listed = {name: value[0] for name, value in bevt.grad_norm.items() if name in norms}
    assert listed.keys() == norms.keys()
    torch.testing.assert_close(norms, listed, rtol=1e-3, atol=1e-7)
