"""Decode rules that look at the clip: the best tokens of those allowed, exactly as many as announced."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tubelet.masks import MaskRules, Motion, Random, Tube, choose_decoded, draw_mask
from tubelet.masks.by_score import highest, wanted_by
from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.rng import rows_of, step_rng
from tubelet.targets.pixels import Pixels
from tubelet.types import Batch, Clips, ClipShape, Grid, Mask, Split
from tubelet.types import Cube as TokenCube

GRID, TOKEN = Grid(4, 4, 4), TokenCube(2, 4, 4)


def clips(count: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randint(
        0, 256, (count, 3, 8, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def split_of(rules: MaskRules, count: int = 3) -> Split:
    masks = [draw_mask(rules, GRID, np.random.default_rng(seed)).stacked() for seed in range(count)]
    return Mask.unstacked(torch.cat(masks)).split()


def test_motion_is_the_mean_square_of_the_change_to_the_frame_before() -> None:
    video = clips(2)
    frames = video.double().numpy()
    change = np.square(np.diff(frames, axis=2))
    change = np.concatenate([change[:, :, :1], change], 2)
    by_hand = change.reshape(2, 3, 4, 2, 4, 4, 4, 4).mean((1, 3, 5, 7))
    np.testing.assert_allclose(Motion().scores(video, TOKEN).numpy(), by_hand, rtol=1e-6)
    np.testing.assert_allclose(Motion().scores(video.float(), TOKEN).numpy(), by_hand, rtol=1e-5)


def test_the_tokens_that_move_most_are_predicted() -> None:
    video = torch.full((1, 3, 8, 16, 16), 100, dtype=torch.uint8)
    video[:, :, 5, 4:8, 8:12] = 200  # in token (2, 1, 2), and from frame 5 to 6 in (3, 1, 2)
    hidden = torch.ones(1, *GRID, dtype=torch.bool)
    hidden[:, 3] = False
    mask = Mask(hidden, torch.from_numpy(Motion(ratio=0.95)(GRID, hidden[0].numpy(), np.random.default_rng(0)))[None])
    chosen = choose_decoded(Motion(ratio=0.95), mask, video, TOKEN)
    assert int(chosen.decoded.sum()) == 48 - int(0.95 * 48) == 3
    assert chosen.decoded[0, 2, 1, 2]
    assert not chosen.decoded[0, 3].any()
    assert chosen.decoded[0].flatten()[:2].all()  # of equal scores the first in raster order


def test_seen_tokens_are_chosen_only_where_they_enter_the_loss() -> None:
    with pytest.raises(ValueError, match=r"decode motion: among=all .* set loss_on=decoded, or decode.among=hidden"):
        draw_mask(MaskRules(Tube(), Motion(among="all")), GRID, np.random.default_rng(0))
    rules = MaskRules(Tube(ratio=0.5), Motion(among="all"), "decoded")
    split, rule = split_of(rules), Motion(among="all")
    chosen = rule.choose_wanted(split, clips(), TOKEN)
    assert split.hidden is not None
    assert chosen.wanted.shape == (3, 32)
    assert not split.hidden.flatten(1).gather(1, chosen.wanted).all()
    assert torch.equal(chosen.weight, torch.ones(3, 32))


def test_an_image_has_no_motion() -> None:
    with pytest.raises(ValueError, match="decode motion: an image has no motion"):
        Motion().scores(clips()[:, :, :1], TOKEN)


def test_clips_with_a_different_number_of_hidden_tokens_each_keep_their_own_count() -> None:
    ratios = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
    draws = [draw_mask(MaskRules(Random(ratio=ratio), Motion()), GRID, np.random.default_rng(0)) for ratio in ratios]
    split = Mask.unstacked(torch.cat([mask.stacked() for mask in draws])).split()
    chosen = Motion().choose_wanted(split, clips(6), TOKEN)
    counts = split.weight.sum(1)
    assert split.hidden is not None
    assert len(set(counts.tolist())) > 1
    assert torch.equal(chosen.weight, split.weight)
    hidden = split.hidden.flatten(1).gather(1, chosen.wanted)
    assert torch.equal(hidden & (chosen.weight > 0), chosen.weight > 0)
    for row, count in zip(chosen.wanted.tolist(), counts.long().tolist(), strict=True):
        assert row[:count] == sorted(set(row[:count]))


def test_a_share_is_drawn_whatever_the_scores_are_and_by_clip() -> None:
    """As importance of arXiv:2411.13683 is to be used: 10 % of the tokens by score and 5 % drawn."""
    rule, hidden = Motion(ratio=0.85, random=1 / 3), torch.ones(4, 5, 4, 5, dtype=torch.bool)
    count = torch.full((4,), rule.count(Grid(5, 4, 5), 100))
    scores = torch.rand(4, 5, 4, 5)
    assert count.tolist() == [15] * 4
    with step_rng(0, 1):
        whole = rule.choose(scores, hidden, count)
    assert whole.flatten(1).sum(1).tolist() == [15] * 4
    best = highest(scores.flatten(1), hidden.flatten(1), count - 5)
    assert (whole.flatten(1) & best).sum(1).tolist() == [10] * 4
    assert (whole.flatten(1) & ~best).float().var(0).sum() > 0
    rows = torch.tensor([2, 0])
    with step_rng(0, 1), rows_of({"video": rows}, {"video": 4}):
        part = rule.choose(scores[rows], hidden[rows], count[rows])
    assert torch.equal(part, whole[rows])
    with step_rng(0, 2):
        assert not torch.equal(rule.choose(scores, hidden, count), whole)


def test_scores_of_any_origin_choose() -> None:
    """So a network can say what is important."""
    split = split_of(MaskRules(Random(ratio=0.5), Motion(ratio=0.75)))
    scores = torch.arange(64.0).view(1, *GRID).expand(3, -1, -1, -1)
    wanted = wanted_by(scores, split, Motion(ratio=0.75)).wanted
    assert split.hidden is not None
    for row, hidden in zip(wanted.tolist(), split.hidden.flatten(1), strict=True):
        assert row == hidden.nonzero().flatten().tolist()[-8:]


def test_a_method_learns_what_its_rule_chooses() -> None:
    spec = MaskedAutoencoderSpec(
        encoder=ViTSpec(width=12, depth=1, heads=2, patch=4), decoder=DecoderSpec(width=12, depth=1, heads=2)
    )
    method = spec.build(ClipShape(frames=8, size=16), Pixels())
    split, video = split_of(MaskRules(Tube(ratio=0.5), Motion())), clips()
    batch = Batch({"video": Clips(video, torch.arange(3))}, {"video": split})
    first = method(batch).loss
    method.decode = Motion()
    chosen = Motion().choose_wanted(split, video, TOKEN)
    assert not torch.equal(chosen.wanted, split.wanted)
    assert method(batch).loss != first
    rows = Pixels().rows(video, chosen.wanted, TOKEN)
    assert method(batch).loss == Pixels().loss(method.predict(video, chosen), rows, chosen.weight)
    assert method.count(batch) == {"video": 3.0 * (32 - 16)}
