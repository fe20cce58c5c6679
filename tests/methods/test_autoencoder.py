"""The masked autoencoder as a whole: it learns, weighs, and works in bf16."""

import numpy as np
import pytest
import torch
from toy_claims import assert_bf16_is_near, assert_learns

from tubelet.masks import Frame, FrameDecode, LossOn, Random, RandomDecode, RunningCell, Tube, scored
from tubelet.methods.autoencoder import MaskedAutoencoder, MaskedAutoencoderSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.targets.pixels import NormalisedPixels, Pixels
from tubelet.types import Batch, Clips, ClipShape, Grid, Mask, Split

CLIP = ClipShape(frames=4, size=16)
GRID = Grid(2, 4, 4)
SPEC = MaskedAutoencoderSpec(
    encoder=ViTSpec(width=24, depth=1, heads=2, patch=4), decoder=DecoderSpec(width=12, depth=2, heads=2)
)


def build(target: NormalisedPixels | Pixels | None = None) -> MaskedAutoencoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SPEC.build(CLIP, target or NormalisedPixels())


def batch(rule: Tube | Random | Frame | None = None, clips: int = 4) -> Batch:
    rng = np.random.default_rng(0)
    chosen = rule or Tube(ratio=0.75)
    hidden = torch.from_numpy(np.stack([chosen(GRID, rng) for _ in range(clips)]))
    rows = torch.arange(16)
    smooth = (rows[:, None] * 5 + rows * 9)[None, None, None] + torch.arange(clips).view(-1, 1, 1, 1, 1) * 20
    video = smooth.expand(clips, 3, 4, 16, 16).to(torch.uint8).contiguous()
    return Batch({"video": Clips(video, torch.arange(clips))}, {"video": Mask(hidden, hidden).split()})


@pytest.mark.parametrize("rule", [Tube(ratio=0.75), Random(ratio=0.9), Frame(ratio=0.5)], ids=lambda rule: rule.kind)
@pytest.mark.parametrize("target", [NormalisedPixels(), Pixels()], ids=lambda target: target.kind)
def test_any_mask_goes_with_any_target(rule: Tube | Random | Frame, target: NormalisedPixels | Pixels) -> None:
    method = build(target)
    output = method(batch(rule))
    output.loss.backward()
    assert torch.isfinite(output.loss)
    assert all(value.grad is not None and torch.isfinite(value.grad).all() for value in method.parameters())


def test_it_learns_a_smooth_picture() -> None:
    assert_learns(build(), batch(), steps=60)


def test_parts_of_a_batch_weigh_as_much_as_they_score() -> None:
    method, data = build(), batch()
    split = data.splits["video"]
    weight = split.weight.clone()
    weight[0, :10] = 0.0  # a part with fewer scored tokens than the other
    whole = Batch(data.clips, {"video": Split(split.seen, split.wanted, weight)})
    parts = [whole.part(slice(0, 2)), whole.part(slice(2, 4))]
    assert sum(method.count(part) for part in parts) == method.count(whole) == float(weight.sum())
    mean = sum(method(part).loss * method.count(part) for part in parts) / method.count(whole)
    torch.testing.assert_close(mean, method(whole).loss)


def test_the_loss_does_not_depend_on_what_is_not_scored() -> None:
    method, data = build(), batch()
    split = data.splits["video"]
    weight = split.weight.clone()
    weight[:, 0] = 0.0
    video = data.clips["video"].video.clone()
    token = int(split.wanted[0, 0])
    row, column = token // 4 % 4 * 4, token % 4 * 4
    changed = video.clone()
    changed[0, :, 0:2, row : row + 4, column : column + 4] = 77
    losses = [
        method(Batch({"video": Clips(v, torch.arange(4))}, {"video": Split(split.seen, split.wanted, weight)})).loss
        for v in (video, changed)
    ]
    assert torch.equal(losses[0], losses[1])


def test_bf16_on_the_cpu_stays_near_float32() -> None:
    assert_bf16_is_near(build(), batch())


def test_same_seed_same_weights_and_no_tables_in_them() -> None:
    first, second = build().state_dict(), build().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not [name for name in first if "pos_embed" in name or "normalise" in name]


def test_the_forward_never_asks_the_device_for_a_value() -> None:
    """On the meta device there is no value to ask for: any `.item()` or data-dependent shape would raise."""
    with torch.device("meta"):
        method = SPEC.build(CLIP, NormalisedPixels())
    output = method(batch().to(torch.device("meta")))
    output.loss.backward()
    assert output.loss.device.type == "meta"


@pytest.mark.parametrize(
    ("encoder", "decoder", "millions"),
    [
        (ViTSpec(width=384, heads=6), DecoderSpec(width=192, heads=3), 24.03),
        (ViTSpec(), DecoderSpec(), 94.21),
        (ViTSpec(width=1024, depth=24, heads=16), DecoderSpec(width=512, heads=8, depth=12), 343.0),
        (ViTSpec(width=1280, depth=32, heads=16), DecoderSpec(width=640, heads=8, depth=12), 692.49),
    ],
    ids=["S", "B", "L", "H"],
)
def test_sizes_have_the_published_number_of_parameters(encoder: ViTSpec, decoder: DecoderSpec, millions: float) -> None:
    with torch.device("meta"):
        method = MaskedAutoencoderSpec(encoder=encoder, decoder=decoder).build(ClipShape(), NormalisedPixels())
    assert round(sum(value.numel() for value in method.parameters()) / 1e6, 2) == millions


@pytest.mark.parametrize("rule", [RunningCell(), FrameDecode(), RandomDecode(ratio=0.6)], ids=lambda rule: rule.kind)
@pytest.mark.parametrize("loss_on", ["hidden", "decoded"])
def test_dual_masking_is_a_weighted_mean_over_what_is_scored(
    rule: RunningCell | FrameDecode | RandomDecode, loss_on: LossOn
) -> None:
    """Against the errors of a pass that decodes every token one by one."""
    method, rng = build(), np.random.default_rng(1)
    hidden = np.stack([Random(ratio=0.5)(GRID, rng) for _ in range(3)])
    decoded = np.stack([rule(GRID, one, rng) for one in hidden])
    chosen = np.stack([scored(*pair, loss_on) for pair in zip(hidden, decoded, strict=True)])
    mask = Mask(*(torch.from_numpy(one) for one in (hidden, decoded, chosen)))
    clips = batch(clips=3).clips
    split = mask.split()
    prediction = method.predict(clips["video"].video, split)
    truth = method.target.rows(clips["video"].video, split.wanted, method.encoder.spec.cube)
    errors = [
        float((prediction[clip, row] - truth[clip, row]).square().mean().detach())
        for clip in range(3)
        for row, token in enumerate(split.wanted[clip].tolist())
        if chosen[clip].ravel()[token]
    ]
    data = Batch(clips, {"video": split})
    assert float(method(data).loss.detach()) == pytest.approx(float(np.mean(errors)), rel=1e-5)
    assert method.count(data) == chosen.sum() == len(errors)
    assert (chosen & ~hidden).any() == (loss_on == "decoded")


def test_tokens_that_are_padded_or_not_decoded_never_enter_the_loss() -> None:
    hidden = torch.zeros(2, *GRID, dtype=torch.bool)
    hidden[:, 0] = True
    decoded = torch.zeros_like(hidden)
    decoded[0, 0, 0] = decoded[1, 1] = True  # 4 and 16 tokens: the first clip is padded
    split = Mask(hidden, decoded, decoded).split()
    assert split.weight.sum(1).tolist() == [4.0, 16.0]
    assert Mask(hidden, decoded).split().weight.sum(1).tolist() == [4.0, 0.0]
