"""Targets that a frozen network gives: what is made of its answer, by formula, and that it stays frozen."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViT, ViTSpec
from tubelet.nn.pixels import Colours, resized
from tubelet.rng import step_rng
from tubelet.targets.features import Features
from tubelet.targets.frozen import FrozenSpec, FrozenTarget, without_network
from tubelet.targets.pseudo_labels import PseudoLabels
from tubelet.targets.teachers import FrameFeatures, StubTeacher, VideoFeatures, frames_of
from tubelet.targets.tokens import Tokens
from tubelet.types import Batch, Clips, ClipShape, Cube, Grid, Split
from tubelet.weights.huggingface.image_models import ImageModel, read_image_model

CUBE = Cube(2, 8, 8)
CLIP = ClipShape(frames=4, size=16)
ALL = torch.arange(8).expand(2, -1)
WANTED = torch.tensor([[0, 3, 5], [7, 1, 2]])
WEIGHT = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])


def clips() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 4, 16, 16), dtype=torch.uint8)


def saying(spec: FrozenSpec, answer: torch.Tensor) -> FrozenTarget:
    """A network that says the same of every clip."""
    return FrozenTarget(spec, StubTeacher(answer), width=answer.shape[-1], file=Path("network"))


def vit() -> ViT:
    with step_rng(1, 0):
        return ViT(ViTSpec(width=12, depth=1, heads=2, patch=8, drop_path=0.5), CLIP, final_norm=True)


# What is made of an answer


def test_features_are_over_their_length_or_standardised_or_as_they_are() -> None:
    answer = 5 * torch.randn(8, 6) + 1
    specs = (Features(), Features(normalise="layer"), Features(normalise="none"))
    rows = {spec.normalise: saying(spec, answer).rows(clips(), WANTED, CUBE) for spec in specs}
    plain = answer[WANTED]
    assert torch.equal(rows["none"], plain)
    torch.testing.assert_close(rows["l2"], plain / plain.square().sum(-1, keepdim=True).sqrt())
    centred = plain - plain.mean(-1, keepdim=True)
    torch.testing.assert_close(rows["layer"], centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt())


def test_the_cosine_error_is_one_minus_the_cosine_by_weight() -> None:
    prediction, target = torch.randn(2, 3, 6), torch.randn(2, 3, 6)
    cosine = (prediction * target).sum(-1) / prediction.norm(dim=-1) / target.norm(dim=-1)
    expected = ((1 - cosine) * WEIGHT).sum() / 4
    torch.testing.assert_close(Features(error="cosine").loss(prediction, target, WEIGHT), expected)
    assert float(Features(error="cosine").loss(3 * target, target, WEIGHT)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_pseudo_labels_are_the_softened_probabilities_for_each_token(temperature: float) -> None:
    logits = torch.tensor([1.0, -2.0, 0.5])
    rows = saying(PseudoLabels(temperature=temperature), logits).rows(clips(), WANTED, CUBE)
    powers = np.exp(logits.numpy() / temperature)
    torch.testing.assert_close(rows, torch.from_numpy(powers / powers.sum()).float().expand(2, 3, 3))


def test_the_loss_of_pseudo_labels_is_the_cross_entropy_of_both_distributions() -> None:
    prediction, share = torch.randn(2, 3, 4), torch.rand(2, 3, 4).softmax(-1)
    by_hand = 0.0
    for clip, token in WEIGHT.nonzero().tolist():
        q = np.exp(prediction[clip, token].double().numpy())
        by_hand -= float((share[clip, token].double().numpy() * np.log(q / q.sum())).sum())
    assert float(PseudoLabels().loss(prediction, share, WEIGHT)) == pytest.approx(by_hand / 4, rel=1e-5)


def test_ids_are_those_of_wanted_tokens_and_their_loss_is_the_cross_entropy() -> None:
    ids = torch.tensor([4, 0, 1, 2, 3, 2, 1, 0])
    target = FrozenTarget(Tokens(), StubTeacher(ids), width=5, file=Path("network"))
    rows = target.rows(clips(), WANTED, CUBE)
    assert rows.dtype == torch.int64
    assert rows.tolist() == [[4, 2, 2], [0, 0, 1]]
    prediction = torch.randn(2, 3, 5)
    each = F.cross_entropy(prediction.flatten(0, 1), rows.flatten(), reduction="none").view(2, 3)
    torch.testing.assert_close(target.loss(prediction, rows, WEIGHT), (each * WEIGHT).sum() / 4)


# The network


def test_it_stays_frozen_and_in_evaluation_mode_and_takes_no_random_draws() -> None:
    target = FrozenTarget(Features(), VideoFeatures(vit().train()), width=12, file=Path("network"))
    before = copy.deepcopy(target.network.state_dict())
    method = MaskedAutoencoderSpec(
        encoder=ViTSpec(width=12, depth=1, heads=2, patch=8), decoder=DecoderSpec(width=12, depth=1, heads=2)
    ).build(CLIP, target)
    method.train()
    split = Split(seen=ALL[:, :4], wanted=ALL[:, 4:], weight=torch.ones(2, 4))
    batch = Batch({"video": Clips(clips(), torch.arange(2))}, {"video": split})
    optimiser = torch.optim.SGD(method.parameters(), lr=0.1)
    state = torch.get_rng_state()
    rows = target.rows(batch.clips["video"].video, split.wanted, CUBE)
    assert torch.equal(torch.get_rng_state(), state)
    method(batch).loss.backward()
    optimiser.step()
    assert not target.network.training
    assert all(value.equal(before[name]) for name, value in target.network.state_dict().items())
    assert torch.equal(rows, target.rows(batch.clips["video"].video, split.wanted, CUBE))


def test_a_method_has_no_tensor_of_it_and_copies_ask_the_same() -> None:
    target = FrozenTarget(Features(), VideoFeatures(vit()), width=12, file=Path("network"))
    spec = MaskedAutoencoderSpec(
        encoder=ViTSpec(width=12, depth=1, heads=2, patch=8), decoder=DecoderSpec(width=12, depth=1, heads=2)
    )
    method = spec.build(CLIP, target)
    plain = spec.build(CLIP, without_network(Features(), width=12, file=Path("network")))
    assert method.state_dict().keys() == plain.state_dict().keys()
    assert dict(method.named_buffers()).keys() == dict(plain.named_buffers()).keys()
    assert copy.deepcopy(method).target is target


def test_a_network_that_was_not_read_is_refused() -> None:
    with pytest.raises(ValueError, match="target tokens: its network was not read"):
        Tokens(teacher="x").width(CUBE)
    with pytest.raises(ValueError, match="was not read: there are no targets without it"):
        without_network(Tokens(), width=3, file=Path("network")).rows(clips(), WANTED, CUBE)


def test_a_video_teacher_gives_its_tokens_in_raster_order() -> None:
    encoder, video = vit().eval(), clips()
    rows = FrozenTarget(Features(normalise="none"), VideoFeatures(encoder), width=12, file=Path("network")).rows(
        video, ALL, CUBE
    )
    assert torch.equal(rows, encoder(video))


# Image teachers


class _Means(nn.Module):
    """A class token of 99, then the mean colours of patches of 4 x 4, in raster order."""

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        patches = F.avg_pool2d(pictures, 4).flatten(2).mT
        return torch.cat([torch.full_like(patches[:, :1], 99.0), patches], 1)


@pytest.mark.parametrize(("which", "counts"), [("first", [0]), ("centre", [1]), ("all", [0, 1])])
def test_an_image_teacher_sees_the_frames_of_the_spec_and_its_own_colours(which: str, counts: list[int]) -> None:
    colours, video = Colours(mean=(0.2, 0.4, 0.6), std=(0.5, 1.0, 2.0)), clips()
    network = FrameFeatures(_Means(), grid=Grid(2, 2, 2), which=which, size=8, colours=colours)  # type: ignore[arg-type]
    rows = FrozenTarget(Features(normalise="none"), network, width=3, file=Path("network")).rows(video, ALL, CUBE)
    small = resized(video, 8) / 255.0
    expected = torch.zeros(2, 8, 3)
    for token in range(8):
        t, y, x = token // 4, token // 2 % 2, token % 2
        part = small[:, :, [2 * t + frame for frame in counts], 4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
        expected[:, token] = (part.mean((2, 3, 4)) - torch.tensor(colours.mean)) / torch.tensor(colours.std)
    torch.testing.assert_close(rows, expected, atol=1e-5, rtol=1e-5)


def test_the_centre_of_three_frames_is_the_second_and_of_one_the_first() -> None:
    video = torch.arange(6).view(1, 1, 6, 1, 1).float()
    assert frames_of(video, 2, "centre").flatten().tolist() == [1, 4]
    assert frames_of(video, 6, "centre").flatten().tolist() == [0, 1, 2, 3, 4, 5]


IMAGE_MODELS = ("clip", "clip_vision_model", "deit", "dinov2", "dinov2_with_registers", "dinov3_vit", "vit")


def write_folder(kind: str, folder: Path) -> nn.Module:
    """A tiny model of this kind, saved by transformers."""
    import transformers as hf

    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    size |= {"image_size": 28, "patch_size": 14}
    classes = {
        "clip_vision_model": (hf.CLIPVisionConfig, hf.CLIPVisionModel),
        "deit": (hf.DeiTConfig, hf.DeiTModel),
        "dinov2": (hf.Dinov2Config, hf.Dinov2Model),
        "dinov2_with_registers": (hf.Dinov2WithRegistersConfig, hf.Dinov2WithRegistersModel),
        "dinov3_vit": (hf.DINOv3ViTConfig, hf.DINOv3ViTModel),
        "vit": (hf.ViTConfig, hf.ViTModel),
    }
    if kind == "clip":
        text = {**size, "vocab_size": 9, "max_position_embeddings": 4}
        model = hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=size, projection_dim=8))
    else:
        config, build = classes[kind]
        model = build(config(**size))
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}')
    inner: nn.Module = model.vision_model if kind == "clip" else model
    return inner.eval()


@pytest.mark.parametrize("kind", IMAGE_MODELS)
def test_image_models_of_transformers_give_their_patches(kind: str, tmp_path: Path) -> None:
    """On pictures of another size than they were trained with; class and register tokens are dropped."""
    with torch.random.fork_rng():
        original = write_folder(kind, tmp_path)
    read = read_image_model(tmp_path)
    assert isinstance(read, ImageModel)
    assert (read.kind, read.width, read.patch, read.trained_size) == (kind, 16, 14, 28)
    state = torch.get_rng_state()
    network = FrameFeatures(read.load(), grid=Grid(1, 3, 3), which="first", size=42, colours=read.colours).eval()
    assert torch.equal(torch.get_rng_state(), state)
    video = torch.randint(0, 256, (2, 3, 1, 42, 42), dtype=torch.uint8)
    tell = {"interpolate_pos_encoding": True} if kind in ("clip", "clip_vision_model", "deit", "vit") else {}
    with torch.no_grad():
        theirs = original(pixel_values=video[:, :, 0] / 255.0, **tell).last_hidden_state
        ours = network(video)
    extra = {"deit": 2, "dinov2_with_registers": 5}.get(kind, 1)
    assert theirs.shape[1] == 9 + (extra if kind != "dinov3_vit" else theirs.shape[1] - 9)
    torch.testing.assert_close(ours, theirs[:, -9:], atol=1e-5, rtol=1e-5)


def test_without_transformers_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    write_folder("dinov2", tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match="pip install 'transformers") as error:
        read_image_model(tmp_path).load()
    assert "\n" not in str(error.value)
