"""Mixing: labels follow the share of the picture, draws follow the seed."""

import pytest
import torch
from pydantic import ValidationError

from tubelet.nn.mixing import NO_MIXING, Mixing, soft_labels

LABELS = torch.tensor([0, 1, 2, 0])


def clips() -> torch.Tensor:
    """Clip b is filled with 50 b."""
    return (torch.arange(4, dtype=torch.uint8) * 50).view(4, 1, 1, 1, 1).expand(4, 3, 2, 16, 16).contiguous()


def mixed(mixing: Mixing, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return mixing(clips(), LABELS, classes=3)


def test_smoothing_spreads_over_all_classes() -> None:
    soft = soft_labels(torch.tensor([1]), 4, smoothing=0.2)
    torch.testing.assert_close(soft, torch.tensor([[0.05, 0.85, 0.05, 0.05]]))


def test_no_mixing_changes_nothing() -> None:
    video, soft = mixed(NO_MIXING)
    assert torch.equal(video, clips())
    assert torch.equal(soft, torch.nn.functional.one_hot(LABELS, 3).float())


def test_mixup_blends_clips_and_labels_by_one_share() -> None:
    video, soft = mixed(Mixing(mixup=0.8, cutmix=0.0, smoothing=0.0))
    assert video.dtype == torch.float32
    share = 1.0 - float(video[0, 0, 0, 0, 0]) / 150.0  # clip 0 is 0, its mirror is 150
    assert 0.0 < share < 1.0
    assert float(video[1].mean()) == pytest.approx(50 * share + 100 * (1 - share), abs=1e-3)
    torch.testing.assert_close(soft[1], torch.tensor([0.0, share, 1 - share]), atol=1e-5, rtol=0)


def test_cutmix_stays_bytes_and_labels_count_the_box() -> None:
    for seed in range(5):
        video, soft = mixed(Mixing(mixup=0.0, cutmix=1.0, smoothing=0.0), seed)
        assert video.dtype == torch.uint8
        own = float((video[1] == 50).float().mean())
        torch.testing.assert_close(soft[1], torch.tensor([0.0, own, 1 - own]), atol=1e-5, rtol=0)
        assert torch.equal(video[:, :, 0], video[:, :, 1])


def test_both_are_used_by_switch_and_probability() -> None:
    kinds = [mixed(Mixing(), seed)[0].dtype for seed in range(40)]
    assert 10 < kinds.count(torch.uint8) < 30
    unchanged = sum(torch.equal(mixed(Mixing(probability=0.5), seed)[0].float(), clips().float()) for seed in range(40))
    assert 8 < unchanged < 32


def test_same_seed_same_mix_and_labels_sum_to_one() -> None:
    first, second = mixed(Mixing(), 3), mixed(Mixing(), 3)
    assert torch.equal(first[0], second[0])
    torch.testing.assert_close(first[1].sum(1), torch.ones(4))


def test_limits() -> None:
    with pytest.raises(ValidationError):
        Mixing(probability=1.5)
    with pytest.raises(ValidationError):
        Mixing(smoothing=1.0)
