"""The masked predictor as a whole: what is hidden stays hidden, the loss is plain, clips may hide unequally many."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toy_claims import assert_bf16_is_near, assert_learns
from toy_run import pretrain_recipe

from tubelet.masks import All, BlockTube, CubeMask, Frame, MaskRule, Random, RunningCell, Tube
from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.methods.predictor import MaskedPredictor, MaskedPredictorSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViT, ViTSpec
from tubelet.nn.pixels import all_cubes
from tubelet.recipe import override
from tubelet.targets.pixels import NormalisedPixels, Pixels
from tubelet.types import Batch, Clips, ClipShape, Grid, Mask

CLIP = ClipShape(frames=4, size=32)
GRID = Grid(2, 8, 8)
ENCODER = ViTSpec(width=24, depth=2, heads=2, patch=4)
RULES = [
    CubeMask(),
    BlockTube(),
    Tube(ratio=0.4),
    Frame(ratio=0.5),
    Frame(ratio=0.4, count="nearest"),
    Random(ratio=0.4),
]


def build(target: NormalisedPixels | Pixels | None = None) -> MaskedPredictor:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MaskedPredictorSpec(encoder=ENCODER).build(CLIP, target or NormalisedPixels())


def mask(rule: MaskRule, clips: int = 4) -> Mask:
    rng = np.random.default_rng(0)
    hidden = torch.from_numpy(np.stack([rule(GRID, rng) for _ in range(clips)]))
    return Mask(hidden, hidden)


def batch(rule: MaskRule = CubeMask(), clips: int = 4) -> Batch:
    rows = torch.arange(32)
    smooth = (rows[:, None] * 2 + rows * 4)[None, None, None] + torch.arange(clips).view(-1, 1, 1, 1, 1) * 15
    video = smooth.expand(clips, 3, 4, 32, 32).to(torch.uint8).contiguous()
    return Batch({"video": Clips(video, torch.arange(clips))}, {"video": mask(rule, clips).split()})


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.kind}-{rule.ratio}")
@pytest.mark.parametrize("target", [NormalisedPixels(), Pixels()], ids=lambda target: target.kind)
def test_any_mask_goes_with_any_target(rule: MaskRule, target: NormalisedPixels | Pixels) -> None:
    method = build(target)
    output = method(batch(rule))
    output.loss.backward()
    assert torch.isfinite(output.loss)
    assert all(value.grad is not None and torch.isfinite(value.grad).all() for value in method.parameters())


def test_what_is_hidden_has_no_influence_on_any_prediction() -> None:
    method, data = build(), batch()
    split, video = data.splits["video"], data.clips["video"].video
    assert split.hidden is not None
    pixels = split.hidden.repeat_interleave(2, 1).repeat_interleave(4, 2).repeat_interleave(4, 3).unsqueeze(1)
    noise = torch.randint(0, 256, video.shape, dtype=torch.uint8)
    assert torch.equal(method.predict(video, split), method.predict(torch.where(pixels, noise, video), split))
    assert not torch.equal(method.predict(video, split), method.predict(torch.where(pixels, video, noise), split))


def test_every_seen_token_has_an_influence() -> None:
    """The full grid goes through the encoder: a change of one seen cube changes what is predicted elsewhere."""
    method, data = build(), batch()
    split, video = data.splits["video"], data.clips["video"].video
    seen = torch.nonzero(~mask(CubeMask()).hidden[0])[0]
    t, h, w = (int(place) for place in seen)
    changed = video.clone()
    changed[0, :, 2 * t : 2 * t + 2, 4 * h : 4 * h + 4, 4 * w : 4 * w + 4] = 77
    assert not torch.equal(method.predict(video, split)[0], method.predict(changed, split)[0])


@pytest.mark.parametrize("rule", [CubeMask(), Random(ratio=0.4)], ids=lambda rule: rule.kind)
def test_the_loss_is_a_mean_over_hidden_tokens_one_by_one(rule: MaskRule) -> None:
    """Against an encoder whose embedding is replaced by hand, token by token, and a head on every token."""
    method, data = build(), batch(rule)
    video, hidden = data.clips["video"].video, mask(rule).hidden.flatten(1)
    encoder = method.encoder
    assert isinstance(encoder, ViT)
    everywhere = torch.arange(GRID.tokens).expand(4, -1).contiguous()
    with torch.no_grad():
        tokens = encoder.patch_embed(encoder.normalise(all_cubes(video, method.cube)))
        assert encoder.mask_token is not None
        for clip in range(4):
            for token in range(GRID.tokens):
                if hidden[clip, token]:
                    tokens[clip, token] = encoder.mask_token[0, 0]
        tokens = tokens + encoder.pos_embed
        for block in encoder.blocks:
            tokens = block(tokens)
        predicted = method.prediction_head(encoder.norm(tokens))
        truth = method.target.rows(video, everywhere, method.cube)
        errors = [
            float((predicted[clip, token] - truth[clip, token]).square().mean())
            for clip in range(4)
            for token in range(GRID.tokens)
            if hidden[clip, token]
        ]
        loss = float(method(data).loss)
    assert loss == pytest.approx(float(np.mean(errors)), rel=1e-5)
    assert method.count(data)["video"] == len(errors) == int(hidden.sum())


def test_clips_may_hide_unequally_many_and_parts_weigh_what_they_score() -> None:
    method, data = build(), batch(CubeMask(ratio=0.6), clips=6)
    split = data.splits["video"]
    assert split.weight.sum(1).unique().numel() > 1, "this seed should draw another number for some clip"
    assert split.seen.shape == (6, 0)
    parts = [data.part({"video": slice(0, 2)}), data.part({"video": slice(2, 6)})]
    counts, total = [method.count(part)["video"] for part in parts], method.count(data)["video"]
    assert sum(counts) == total
    mean = sum(method(part).loss * count for part, count in zip(parts, counts, strict=True)) / total
    torch.testing.assert_close(mean, method(data).loss)


def test_the_autoencoder_refuses_clips_that_hide_unequally_many() -> None:
    with torch.random.fork_rng():
        spec = MaskedAutoencoderSpec(encoder=ENCODER, decoder=DecoderSpec(width=12, depth=1, heads=2))
        method = spec.build(CLIP, NormalisedPixels())
    with pytest.raises(ValueError, match="equally many tokens"):
        method(batch(CubeMask(ratio=0.6), clips=6))


def test_a_recipe_refuses_such_a_mask_with_an_autoencoder_and_takes_it_with_a_predictor() -> None:
    for rule in ("cube", "block_tube"):
        with pytest.raises(ValueError, match=f"mask {rule} hides another number") as refused:
            override(pretrain_recipe(), [f"mask={rule}"])
        assert "\n" not in str(refused.value)
        recipe = override(pretrain_recipe(), [f"mask={rule}", "model=masked_predictor", "model.encoder.depth=1"])
        assert (recipe.model.kind, recipe.model.encoder.depth) == ("masked_predictor", 1)


def test_it_learns_a_smooth_picture() -> None:
    assert_learns(build(), batch(), steps=50)


def test_bf16_on_the_cpu_stays_near_float32() -> None:
    assert_bf16_is_near(build(), batch())


def test_the_forward_never_asks_the_device_for_a_value() -> None:
    """On the meta device there is no value to ask for, however ragged the counts are."""
    with torch.device("meta"):
        method = MaskedPredictorSpec(encoder=ENCODER).build(CLIP, NormalisedPixels())
    output = method(batch(CubeMask(ratio=0.6), clips=6).to(torch.device("meta")))
    output.loss.backward()
    assert output.loss.device.type == "meta"


def test_only_a_predictor_has_a_mask_token_in_its_encoder() -> None:
    names = set(build().state_dict())
    assert {"encoder.mask_token", "prediction_head.weight", "prediction_head.bias", "encoder.norm.weight"} <= names
    spec = MaskedAutoencoderSpec(encoder=ENCODER, decoder=DecoderSpec(width=12, depth=1, heads=2))
    assert "encoder.mask_token" not in spec.build(CLIP, NormalisedPixels()).state_dict()


def test_only_what_the_decode_rule_asks_for_is_predicted() -> None:
    rng, rule = np.random.default_rng(3), RunningCell()
    hidden = np.stack([Random(ratio=0.5)(GRID, rng) for _ in range(2)])
    decoded = np.stack([rule(GRID, one, rng) for one in hidden])
    split = Mask(torch.from_numpy(hidden), torch.from_numpy(decoded)).split()
    data = Batch(batch(clips=2).clips, {"video": split})
    assert build().count(data)["video"] == (hidden & decoded).sum() < hidden.sum()
    assert All()(GRID, hidden[0], rng).sum() == hidden[0].sum()
