"""What holds for every target: bytes or floats alike, only wanted tokens, float32 or ids, a mean by weight.

A new target is an entry in the list `TARGETS`; one that asks a frozen network, in the list `ASKED`.
"""

import copy
from pathlib import Path
from typing import get_args

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from tubelet.methods.classifier import ClassifierSpec
from tubelet.models.tokenizers.dvae import DvaeEncoder, DvaeSpec
from tubelet.models.vit import ViT, ViTSpec
from tubelet.rng import step_rng
from tubelet.targets.features import Features
from tubelet.targets.frozen import FrozenSpec, FrozenTarget
from tubelet.targets.hog import Hog
from tubelet.targets.pixels import FramePixels, NormalisedPixels, Pixels
from tubelet.targets.pseudo_labels import PseudoLabels
from tubelet.targets.teachers import FrameIds, VideoFeatures
from tubelet.targets.tokens import Tokens
from tubelet.targets.unions import Target, TargetSpec
from tubelet.types import ClipShape, Cube, Grid
from tubelet.weights.teachers import Scores

CUBE = Cube(2, 8, 8)
WANTED = torch.tensor([[0, 3, 5], [7, 1, 2]])
TARGETS: list[Target] = [NormalisedPixels(), Pixels(), FramePixels(), Hog()]


def asked(spec: FrozenSpec, network: nn.Module, width: int) -> FrozenTarget:
    return FrozenTarget(spec, network, width=width, file=Path("network"))


with step_rng(0, 0):
    VIT, CLIP = ViTSpec(width=12, depth=1, heads=2, patch=8), ClipShape(frames=4, size=16)
    CLASSIFIER = ClassifierSpec(encoder=VIT, init_scale=1.0).build(CLIP, 5)
    DVAE = DvaeEncoder(DvaeSpec(width=8, blocks=1, vocabulary=7))
ASKED: list[FrozenTarget] = [
    asked(Features(), VideoFeatures(ViT(VIT, CLIP, final_norm=True)), 12),
    asked(PseudoLabels(), Scores(CLASSIFIER), 5),
    asked(Tokens(), FrameIds(DVAE, grid=Grid(2, 2, 2)), 7),
]

every_target = pytest.mark.parametrize("target", [*TARGETS, *ASKED], ids=lambda target: target.kind)


def clips() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 4, 16, 16), dtype=torch.uint8)


def test_no_target_is_left_out() -> None:
    specs = [*TARGETS, *(target.spec for target in ASKED)]
    assert {type(spec) for spec in specs} == set(get_args(get_args(TargetSpec)[0]))


@every_target
def test_a_target_is_named_by_its_kind(target: Target) -> None:
    spec = target.spec if isinstance(target, FrozenTarget) else target
    assert TypeAdapter(TargetSpec).validate_python(target.kind) == spec


@every_target
def test_rows_are_as_wide_as_announced(target: Target) -> None:
    rows = target.rows(clips(), WANTED, CUBE)
    assert rows.shape == ((2, 3, target.width(CUBE)) if rows.is_floating_point() else (2, 3))
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
    in_the_runs_precision = target.kind in ("features", "pseudo_labels")
    assert torch.equal(rows, full) != in_the_runs_precision


@pytest.mark.parametrize("target", [*TARGETS, ASKED[0]], ids=lambda target: target.kind)
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
    if isinstance(target, FrozenTarget):  # its network goes where the clips are, and would not come back from there
        target = asked(target.spec, copy.deepcopy(target.network), target.width(CUBE))
    rows = target.rows(clips().to("meta"), WANTED.to("meta"), CUBE)
    assert rows.shape[:2] == (2, 3)
    assert target.loss(torch.zeros(2, 3, target.width(CUBE), device="meta"), rows, WANTED.to("meta") * 1.0).is_meta
