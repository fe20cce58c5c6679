"""What holds for every target: bytes or floats alike, only wanted tokens, float32 or ids, a mean by weight.

A new target that is made from the clip is in the list by itself; one that asks a frozen network is an entry in `ASKED`.
"""

import copy
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from tubelet.methods.classifier import ClassifierSpec
from tubelet.models.tokenizers.dvae import DvaeEncoder, DvaeSpec
from tubelet.models.vit import ViT, ViTSpec
from tubelet.pictures.reconstruct import PAINTERS
from tubelet.rng import step_rng
from tubelet.spec import kinds_of, replace
from tubelet.targets.base import Error
from tubelet.targets.features import Features
from tubelet.targets.frozen import FrozenSpec, FrozenTarget
from tubelet.targets.pixels import Pixels
from tubelet.targets.pseudo_labels import PseudoLabels
from tubelet.targets.several import SeveralTargets
from tubelet.targets.teachers import FrameIds, VideoFeatures
from tubelet.targets.tokens import Tokens
from tubelet.targets.unions import Several, Target, TargetSpec, trained_target
from tubelet.types import ClipShape, Cube, Grid
from tubelet.weights.teachers import ClassScores

CUBE = Cube(2, 8, 8)
WANTED = torch.tensor([[0, 3, 5], [7, 1, 2]])
TARGETS: list[Any] = [spec() for spec in kinds_of(TargetSpec).values() if spec.asks is None]  # type: ignore[attr-defined]


def asked(spec: FrozenSpec, network: nn.Module, width: int) -> FrozenTarget:
    return FrozenTarget(spec, network, width=width, file=Path("network"))


with step_rng(0, 0):
    VIT, CLIP = ViTSpec(width=12, depth=1, heads=2, patch=8), ClipShape(frames=4, size=16)
    CLASSIFIER = ClassifierSpec(encoder=VIT, init_scale=1.0).build(CLIP, 5)
    DVAE = DvaeEncoder(DvaeSpec(width=8, blocks=1, vocabulary=7))
ASKED: list[FrozenTarget] = [
    asked(Features(), VideoFeatures(ViT(VIT, CLIP, final_norm=True)), 12),
    asked(PseudoLabels(), ClassScores(CLASSIFIER), 5),
    asked(Tokens(), FrameIds(DVAE, grid=Grid(2, 2, 2)), 7),
]
SEVERAL = Several(parts=(*TARGETS, *(one.spec for one in ASKED))).ready(
    lambda spec: next(one for one in ASKED if one.spec == spec), CUBE
)
NUMBERS = [*TARGETS, ASKED[0]]

every_target = pytest.mark.parametrize("target", [*TARGETS, *ASKED, SEVERAL], ids=lambda target: target.kind)
one_target = pytest.mark.parametrize("target", [*TARGETS, *ASKED], ids=lambda target: target.kind)


def clips() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 4, 16, 16), dtype=torch.uint8)


def test_no_target_is_left_out() -> None:
    assert {target.kind for target in (*TARGETS, *ASKED)} == set(kinds_of(TargetSpec))


@every_target
def test_a_target_has_what_methods_plans_and_pictures_ask_for(target: Target) -> None:
    assert isinstance(target, Target)
    assert target.picture in (None, *PAINTERS)
    assert target.shown.picture == target.picture
    assert target.peak_bytes(ClipShape(frames=4, size=16), CUBE, rows=6, clips=2, on_cpu=True) > 0
    assert all(network in ASKED for network in target.networks)


@one_target
def test_a_target_is_named_by_its_kind(target: Target) -> None:
    spec = target.spec if isinstance(target, FrozenTarget) else target
    assert TypeAdapter(TargetSpec).validate_python(target.kind) == spec


@every_target
def test_rows_are_as_wide_as_announced(target: Target) -> None:
    rows = target.rows(clips(), WANTED, CUBE)
    width = target.width(CUBE) - (6 if target is SEVERAL else 0)  # 7 logits are predicted for one id
    assert rows.shape == ((2, 3, width) if rows.is_floating_point() else (2, 3))
    assert target.has_ids == (not rows.is_floating_point())
    prediction = torch.zeros(2, 3, target.width(CUBE), requires_grad=True)
    target.loss(prediction, rows, torch.ones(2, 3)).backward()
    assert prediction.grad is not None
    assert prediction.grad.any()


@every_target
def test_rows_leave_the_video_alone_and_need_no_gradient(target: Target) -> None:
    video = clips().float().requires_grad_()
    before = video.detach().clone()
    rows = target.rows(video, WANTED, CUBE)
    assert torch.equal(video, before)
    assert not rows.requires_grad
    torch.testing.assert_close(rows, target.rows(before.byte(), WANTED, CUBE), atol=1e-6, rtol=1e-6)


@every_target
def test_rows_of_wanted_tokens_are_those_of_all(target: Target) -> None:
    video = clips()
    everything = target.rows(video, torch.arange(8).expand(2, -1), CUBE)
    picked = everything[torch.arange(2)[:, None], WANTED]
    assert torch.equal(target.rows(video, WANTED, CUBE), picked)


@every_target
def test_any_layout_in_memory_will_do(target: Target) -> None:
    video = clips()
    turned = video.permute(0, 2, 3, 4, 1).contiguous().permute(0, 4, 1, 2, 3)
    rows = target.rows(turned, WANTED, CUBE)
    torch.testing.assert_close(rows, target.rows(video, WANTED, CUBE), atol=1e-6, rtol=1e-6)


@every_target
def test_targets_and_loss_are_float32_under_autocast(target: Target) -> None:
    video = clips()
    prediction = torch.rand(2, 3, target.width(CUBE))
    with torch.autocast("cpu", torch.bfloat16):
        rows = target.rows(video, WANTED, CUBE)
        loss = target.loss(prediction.bfloat16(), rows, torch.ones(2, 3))
    assert loss.dtype == torch.float32
    full = target.rows(video, WANTED, CUBE)
    assert rows.dtype == full.dtype
    assert rows.dtype in (torch.float32, torch.int64)
    in_the_runs_precision = target.kind in ("features", "pseudo_labels") or target is SEVERAL
    assert torch.equal(rows, full) != in_the_runs_precision


@pytest.mark.parametrize("target", NUMBERS, ids=lambda target: target.kind)
def test_the_loss_is_a_mean_over_scored_tokens_of_the_batch(target: Target) -> None:
    prediction, true = torch.zeros(2, 3, 4), torch.ones(2, 3, 4)
    true[0, 0] = 3.0
    weight = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    assert float(target.loss(prediction, true, weight)) == pytest.approx((9 + 1 + 1) / 3)


@every_target
def test_where_nothing_is_scored_there_is_no_loss_and_no_gradient(target: Target) -> None:
    """Such is a piece of a step whose clips have no scored token; not a number times its share of 0 is none either."""
    prediction = torch.rand(2, 3, target.width(CUBE), requires_grad=True)
    loss = target.loss(prediction, target.rows(clips(), WANTED, CUBE), torch.zeros(2, 3))
    loss.backward()
    assert loss.item() == 0
    assert prediction.grad is not None
    assert not prediction.grad.any()


@every_target
def test_no_token_need_be_wanted(target: Target) -> None:
    rows = target.rows(clips(), torch.empty(2, 0, dtype=torch.int64), CUBE)
    assert rows.shape[:2] == (2, 0)
    assert target.loss(torch.rand(2, 0, target.width(CUBE)), rows, torch.zeros(2, 0)) == 0


@every_target
def test_no_value_is_asked_of_the_device(target: Target) -> None:
    """On the meta device there is none: `.item()`, or a shape that follows from values, would raise."""
    for one in target.networks:  # they go where the clips are, and would not come back from there
        target = target if target is SEVERAL else asked(one.spec, copy.deepcopy(one.network), target.width(CUBE))
    if target is SEVERAL:
        copies = {one.kind: asked(one.spec, copy.deepcopy(one.network), one.width(CUBE)) for one in ASKED}
        target = SeveralTargets(
            [part._replace(target=copies.get(part.name, part.target)) for part in SEVERAL.parts], CUBE
        )
    rows = target.rows(clips().to("meta"), WANTED.to("meta"), CUBE)
    assert rows.shape[:2] == (2, 3)
    assert target.loss(torch.zeros(2, 3, target.width(CUBE), device="meta"), rows, WANTED.to("meta") * 1.0).is_meta


@pytest.mark.parametrize("target", NUMBERS, ids=lambda target: target.kind)
@pytest.mark.parametrize("error", get_args(Error))
def test_the_error_of_a_token_is_that_of_the_spec(target: Any, error: str) -> None:
    spec = target.spec if isinstance(target, FrozenTarget) else target
    prediction, true, weight = torch.randn(2, 3, 5), torch.randn(2, 3, 5), torch.rand(2, 3)
    beta = 0.5 if error == "smooth_l1" else 1.0
    difference = (prediction - true).abs().double()
    each = {
        "squared": difference.square().mean(-1),
        "l1": difference.mean(-1),
        "smooth_l1": torch.where(difference < 0.5, difference.square(), difference - 0.25).mean(-1),
        "cosine": 1 - (prediction * true).sum(-1) / prediction.norm(dim=-1) / true.norm(dim=-1),
    }[error]
    found = replace(spec, error=error, beta=beta).loss(prediction, true, weight)
    assert float(found) == pytest.approx(float((each * weight).sum() / weight.sum()), rel=1e-5)


def test_beta_is_for_smooth_l1_alone() -> None:
    with pytest.raises(ValidationError, match="beta is for error=smooth_l1, not squared"):
        Pixels(beta=0.5)


def test_several_targets_have_the_rows_and_losses_of_each() -> None:
    video, weight = clips(), torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    prediction = torch.randn(2, 3, SEVERAL.width(CUBE))
    rows = SEVERAL.rows(video, WANTED, CUBE)
    score = SEVERAL.score(prediction, rows, weight)
    first = 0
    for part in SEVERAL.parts:
        width = part.target.width(CUBE)
        alone = part.target.loss(prediction[..., first : first + width], part.target.rows(video, WANTED, CUBE), weight)
        torch.testing.assert_close(score.metrics[f"loss_{part.name}"], alone)
        first += width
    torch.testing.assert_close(score.loss, sum(score.metrics.values()))
    assert SEVERAL.networks == tuple(ASKED)


def test_weights_multiply_and_kinds_that_occur_twice_are_numbered() -> None:
    several = Several(parts=({"kind": "pixels", "weight": 3.0}, "pixels", {"kind": "hog", "cell": 4}))
    ready = several.ready(lambda spec: spec, CUBE)
    rows = ready.rows(clips(), WANTED, CUBE)
    score = ready.score(torch.zeros(2, 3, ready.width(CUBE)), rows, torch.ones(2, 3))
    losses = [float(score.metrics[name]) for name in ("loss_pixels_1", "loss_pixels_2", "loss_hog")]
    assert float(score.loss) == pytest.approx(3 * losses[0] + losses[1] + losses[2])
    assert losses[0] == losses[1] != losses[2]


def test_pictures_of_several_are_of_the_first_that_has_one() -> None:
    parts = (Features(teacher="x"), Tokens(teacher="x"), {"kind": "hog", "cell": 4}, "pixels")
    several = Several(parts=parts)
    ready = trained_target(several, lambda: 500, cube=CUBE, file=Path("model"))
    assert ready.shown.kind == several.shown.kind == "hog"
    assert ready.shown_columns == slice(0, 108)
    assert ready.width(CUBE) == 500
    assert not several.lacks_colours
