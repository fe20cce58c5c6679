"""What holds for every target: bytes or floats alike, only wanted tokens, float32, a mean by weight."""

from typing import get_args

import pytest
import torch
from pydantic import TypeAdapter

from tubelet.targets.frame_pixels import FramePixels
from tubelet.targets.hog import Hog
from tubelet.targets.kinds import Target
from tubelet.targets.pixels import NormalisedPixels, Pixels
from tubelet.types import Cube

CUBE = Cube(2, 8, 8)
WANTED = torch.tensor([[0, 3, 5], [7, 1, 2]])
TARGETS: list[Target] = [NormalisedPixels(), Pixels(), FramePixels(), Hog()]

every_target = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.kind)


def clips() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 4, 16, 16), dtype=torch.uint8)


def test_no_target_is_left_out() -> None:
    assert {type(target) for target in TARGETS} == set(get_args(get_args(Target)[0]))


@every_target
def test_a_target_is_named_by_its_kind(target: Target) -> None:
    assert TypeAdapter(Target).validate_python(target.kind) == target


@every_target
def test_rows_are_as_wide_as_announced(target: Target) -> None:
    assert target.rows(clips(), WANTED, CUBE).shape == (2, 3, target.width(CUBE))


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
    with torch.autocast("cpu", torch.bfloat16):
        rows = target.rows(video, WANTED, CUBE)
        loss = target.loss(rows.bfloat16(), rows, torch.ones(2, 3))
    assert torch.equal(rows, target.rows(video, WANTED, CUBE))
    assert loss.dtype == torch.float32


@every_target
def test_the_loss_is_a_mean_over_scored_tokens_of_the_batch(target: Target) -> None:
    prediction, true = torch.zeros(2, 3, 4), torch.ones(2, 3, 4)
    true[0, 0] = 3.0
    weight = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    assert float(target.loss(prediction, true, weight)) == pytest.approx((9 + 1 + 1) / 3)


@every_target
def test_no_value_is_asked_of_the_device(target: Target) -> None:
    """On the meta device there is none: `.item()`, or a shape that follows from values, would raise."""
    rows = target.rows(clips().to("meta"), WANTED.to("meta"), CUBE)
    assert rows.shape == (2, 3, target.width(CUBE))
