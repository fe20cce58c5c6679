"""`tubelet.load`: tokens, vectors, classes and reconstructions, from a model of any origin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from toy_labelled import write_video

import tubelet
from tubelet.methods.autoencoder import MaskedAutoencoder, MaskedAutoencoderSpec
from tubelet.methods.classifier import Classifier, ClassifierSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.recipe import FinetuneRecipe, PretrainRecipe, write_recipe
from tubelet.targets.pixels import NormalisedPixels
from tubelet.types import ClipShape
from tubelet.video.sample import Strided
from tubelet.weights.read import Hints
from tubelet.weights.tensors.rename import to_official
from tubelet.weights.videomae.names import FINETUNED

CLIP = ClipShape(frames=4, size=16)
ENCODER = ViTSpec(width=24, depth=2, heads=2, patch=8)
DECODER = DecoderSpec(width=12, depth=1, heads=2)


def filled(module: nn.Module) -> nn.Module:
    rng = torch.Generator().manual_seed(0)
    for value in module.parameters():
        value.data.normal_(std=0.2, generator=rng)
    return module.eval()


def saved(module: nn.Module, recipe: PretrainRecipe | FinetuneRecipe, out: Path, *names: str) -> Path:
    folder = out / "model"
    folder.mkdir(parents=True)
    save_file(module.state_dict(), folder / "model.safetensors")
    write_recipe(recipe, folder / "recipe.yaml")
    if names:
        (folder / "classes.txt").write_text("\n".join(names) + "\n")
    return out


@pytest.fixture
def pretrained(tmp_path: Path) -> tuple[MaskedAutoencoder, Path]:
    spec = MaskedAutoencoderSpec(encoder=ENCODER, decoder=DECODER)
    method = spec.build(CLIP, NormalisedPixels())
    filled(method)
    return method, saved(method, PretrainRecipe(name="toy", clip=CLIP, model=spec), tmp_path / "pre")


@pytest.fixture
def finetuned(tmp_path: Path) -> tuple[Classifier, Path]:
    spec = ClassifierSpec(encoder=ENCODER)
    classifier = spec.build(CLIP, 3)
    filled(classifier)
    recipe = FinetuneRecipe(name="toy", clip=CLIP, model=spec, classes=3)
    return classifier, saved(classifier, recipe, tmp_path / "fine", "up", "down", "left")


def clips(count: int = 2) -> Tensor:
    return torch.randint(0, 256, (count, 3, 4, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_a_pretrained_model_gives_its_encoders_tokens_and_their_mean(
    pretrained: tuple[MaskedAutoencoder, Path],
) -> None:
    method, run = pretrained
    model = tubelet.load(run, device="cpu")
    tokens, pooled = model.encode(clips())
    assert torch.equal(tokens, method.encoder(clips()))
    assert torch.equal(pooled, tokens.mean(1))
    assert torch.equal(model.pool(clips()), pooled)
    assert (model.width, model.clip, model.names) == (24, CLIP, None)
    assert not tokens.requires_grad
    with pytest.raises(ValueError, match="has no classes; fine-tune it first"):
        model.classify(clips())


def test_a_classifier_gives_logits_names_and_the_vector_its_head_reads(finetuned: tuple[Classifier, Path]) -> None:
    classifier, run = finetuned
    model = tubelet.load(run, device="cpu")
    scores = model.classify(clips())
    assert torch.equal(scores.logits, classifier(clips()))
    assert torch.equal(model.encode(clips()).pooled, classifier.features(clips()))
    best = scores.top(2)
    assert [len(row) for row in best] == [2, 2]
    assert best[0][0][0] == ("up", "down", "left")[int(scores.logits[0].argmax())]
    assert best[0][0][1] == pytest.approx(float(scores.logits[0].softmax(0).max()))
    assert [sum(p for _, p in row) for row in scores.top(9)] == pytest.approx([1.0, 1.0])
    with pytest.raises(ValueError, match="has no decoder"):
        model.reconstruct(clips(1))


def test_one_clip_is_a_batch_of_one_and_other_shapes_are_refused(finetuned: tuple[Classifier, Path]) -> None:
    model = tubelet.load(finetuned[1], device="cpu")
    assert torch.equal(model.encode(clips()[0]).pooled, model.encode(clips()[:1]).pooled)
    with pytest.raises(ValueError, match=r"clips are \[B,3,T,H,W\] or one clip \[3,T,H,W\], got \(2, 4, 3, 16, 16\)"):
        model.encode(clips().transpose(1, 2))
    with pytest.raises(ValueError, match="the model takes clips of"):
        model.encode(clips()[:, :, :2])


def test_a_reconstruction_follows_from_the_seed(pretrained: tuple[MaskedAutoencoder, Path]) -> None:
    model = tubelet.load(pretrained[1], device="cpu")
    first, again = model.reconstruct(clips()[0], seed=3), model.reconstruct(clips()[0], seed=3)
    assert np.array_equal(first.reconstructed, again.reconstructed)
    assert first.reconstructed.shape == (4, 16, 16, 3)
    assert first.hidden_ratio == 0.75  # 3 of the 4 places: tube, 90 %
    with pytest.raises(ValueError, match="takes one clip, got 2"):
        model.reconstruct(clips())


def test_another_clip_stretches_the_positions_and_says_so(pretrained: tuple[MaskedAutoencoder, Path]) -> None:
    model = tubelet.load(pretrained[1], frames=8, size=32, device="cpu")
    assert model.clip == ClipShape(frames=8, size=32)
    assert model.notes == ("positions of 4 frames of 16 x 16 are interpolated to 8 frames of 32 x 32",)
    video = torch.zeros(1, 3, 8, 32, 32, dtype=torch.uint8)
    assert model.encode(video).tokens.shape == (1, 64, 24)
    assert model.reconstruct(video).reconstructed.shape == (8, 32, 32, 3)
    with pytest.raises(ValueError, match=r"clip.frames 5 is not a multiple of the tubelet 2"):
        tubelet.load(pretrained[1], frames=5)


def test_a_released_file_is_loaded_as_it_is(finetuned: tuple[Classifier, Path], tmp_path: Path) -> None:
    classifier, run = finetuned
    torch.save({"module": to_official(classifier.state_dict(), FINETUNED)}, tmp_path / "released.pth")
    model = tubelet.load(tmp_path / "released.pth", device="cpu", hints=Hints(heads=2, frames=4, size=16))
    assert torch.equal(model.classify(clips()).logits, classifier(clips()))
    assert model.names == ("0", "1", "2")
    assert isinstance(model.sampler, type(tubelet.load(run).sampler))


def test_the_fingerprint_is_of_what_decides_the_outputs(pretrained: tuple[MaskedAutoencoder, Path]) -> None:
    method, run = pretrained
    first = tubelet.load(run, device="cpu").fingerprint
    assert tubelet.load(run, device="cpu").fingerprint == first
    assert tubelet.load(run, device="cpu", frames=8).fingerprint != first
    method.encoder.get_parameter("patch_embed.bias").data[0] += 1
    save_file(method.state_dict(), run / "model" / "model.safetensors")
    assert tubelet.load(run, device="cpu").fingerprint != first


def test_read_clip_gives_bytes_of_the_wanted_part(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", 120, seed=0, frames=20)  # 10 frames a second
    whole = tubelet.read_clip(tmp_path / "v.mp4", frames=4, size=16)
    assert (whole.shape, whole.dtype) == ((3, 4, 16, 16), torch.uint8)
    first = tubelet.read_clip(tmp_path / "v.mp4", frames=4, size=16, end_seconds=0.4)
    every = tubelet.read_clip(tmp_path / "v.mp4", frames=20, size=16)
    assert torch.equal(first, every[:, :4])
    dense = tubelet.read_clip(tmp_path / "v.mp4", frames=4, size=16, start_seconds=1.0, sampler=Strided(stride=2))
    assert torch.equal(dense, every[:, [10, 12, 14, 16]])
    with pytest.raises(ValueError, match=r"v.mp4: no frame from 9.0 s on; the last is at 1.90 s"):
        tubelet.read_clip(tmp_path / "v.mp4", start_seconds=9.0)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ValueError, match=r"text.mp4: "):
        tubelet.read_clip(tmp_path / "text.mp4")


def test_unknown_names_of_the_package_are_unknown() -> None:
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        tubelet.lod  # noqa: B018


def test_pooling_change_is_how_far_each_token_moves_between_steps(pretrained: tuple[MaskedAutoencoder, Path]) -> None:
    model = tubelet.load(pretrained[1], frames=8, device="cpu", pooling="change")
    video = torch.randint(0, 256, (2, 3, 8, 16, 16), dtype=torch.uint8)
    tokens, vectors = model.encode(video)
    steps = tokens.view(2, 4, 4, 24)
    expected = torch.stack([(steps[:, 1:] - steps[:, :-1])[..., i] ** 2 for i in range(24)]).sum(0).sqrt()
    assert vectors.shape == (2, model.vector_width) == (2, 12)
    torch.testing.assert_close(vectors, expected.reshape(2, 12))
    assert model.fingerprint != tubelet.load(pretrained[1], frames=8, device="cpu").fingerprint
    single = tubelet.load(pretrained[1], frames=2, device="cpu", pooling="change")
    with pytest.raises(ValueError, match="at least two tubelets"):
        single.pool(video[:, :, :2])


def test_bf16_weights_give_what_autocast_gives(finetuned: tuple[Classifier, Path]) -> None:
    classifier, run = finetuned
    model = tubelet.load(run, device="cpu", precision="bf16")
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        expected = classifier(clips()).float()
    assert torch.equal(model.classify(clips()).logits, expected)
    assert model.encode(clips()).tokens.dtype == torch.float32
