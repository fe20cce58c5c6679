"""Where to start from: runs, checkpoints, files, released weights; and one clear line for what does not fit."""

import argparse
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tubelet.methods.autoencoder import MaskedAutoencoder, MaskedAutoencoderSpec
from tubelet.methods.classifier import Classifier, ClassifierSpec, Finetuning
from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.nn.mixing import Mixing
from tubelet.targets.pixels import NormalisedPixels
from tubelet.types import ClipShape
from tubelet.weights.start import encoder_weights, start_classifier, start_whole, weights_file
from tubelet.weights.videomae import FINETUNED, PRETRAINED, to_official

CLIP = ClipShape(frames=4, size=16)
ENCODER = ViTSpec(width=8, depth=2, heads=2, patch=8)
DECODER = DecoderSpec(width=8, depth=1, heads=2)


def autoencoder(encoder: ViTSpec = ENCODER) -> MaskedAutoencoder:
    return MaskedAutoencoderSpec(encoder=encoder, decoder=DECODER).build(CLIP, NormalisedPixels())


def classifier(encoder: ViTSpec = ENCODER, **changes: str) -> Classifier:
    return ClassifierSpec.model_validate({"encoder": encoder, **changes}).build(CLIP, 3)


def saved(method: torch.nn.Module, folder: Path) -> Path:
    folder.mkdir(parents=True)
    save_file(method.state_dict(), folder / "model.safetensors")
    return folder


def test_a_run_gives_its_final_model_else_its_newest_checkpoint(tmp_path: Path) -> None:
    old = saved(autoencoder(), tmp_path / "checkpoints/step-00000009")
    new = saved(autoencoder(), tmp_path / "checkpoints/step-00000010")
    assert weights_file(tmp_path) == new / "model.safetensors"
    assert weights_file(old) == old / "model.safetensors"
    final = saved(autoencoder(), tmp_path / "model")
    assert weights_file(tmp_path) == final / "model.safetensors"
    assert weights_file(final / "model.safetensors") == final / "model.safetensors"


@pytest.mark.parametrize("wrapped", [False, True])
def test_encoder_weights_have_the_names_of_the_encoder(tmp_path: Path, wrapped: bool) -> None:
    method = Finetuning(classifier(), Mixing()) if wrapped else autoencoder()
    encoder = method.classifier.encoder if isinstance(method, Finetuning) else method.encoder
    found = encoder_weights(saved(method, tmp_path / "run"))
    assert found.keys() == encoder.state_dict().keys()
    assert torch.equal(found["patch_embed.weight"], encoder.patch_embed.weight)


def test_finetuning_drops_the_final_norm_and_the_decoder_and_starts_norm_and_head_fresh(tmp_path: Path) -> None:
    source, model = autoencoder(), classifier()
    started = start_classifier(model, saved(source, tmp_path / "run"))
    assert started.fresh == ("fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias")
    assert {"encoder.norm.weight", "encoder.norm.bias", "decoder.mask_token"} <= set(started.dropped)
    assert all(name.startswith(("encoder.norm.", "decoder.")) for name in started.dropped)
    assert set(started.loaded) == {name for name in model.state_dict() if name.startswith("encoder.")}
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(value, source.encoder.state_dict()[name])


def test_the_first_token_is_read_through_the_encoders_own_norm(tmp_path: Path) -> None:
    started = start_classifier(classifier(pooling="first"), saved(autoencoder(), tmp_path / "run"))
    assert "encoder.norm.weight" in started.loaded
    assert started.fresh == ("head.weight", "head.bias")


def test_pretraining_goes_on_from_every_tensor(tmp_path: Path) -> None:
    source, model = autoencoder(), autoencoder()
    started = start_whole(model, saved(source, tmp_path / "run"))
    assert started.dropped == started.fresh == ()
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("container", ["model", "module", None])
def test_released_files_are_renamed_and_never_executed(tmp_path: Path, container: str | None) -> None:
    source = autoencoder()
    state = to_official(source.state_dict(), PRETRAINED)
    content = {container: state, "epoch": 3, "args": argparse.Namespace(lr=1.0)} if container else state
    torch.save(content, tmp_path / "official.pth")
    found = encoder_weights(tmp_path / "official.pth")
    assert found.keys() == source.encoder.state_dict().keys()
    torch.save({"model": Path("x"), "code": print}, tmp_path / "code.pth")
    with pytest.raises(ValueError, match=r"code.pth: truncated, or not a checkpoint that holds tensors only"):
        encoder_weights(tmp_path / "code.pth")


def test_a_released_classifier_is_a_start_too(tmp_path: Path) -> None:
    source = classifier()
    save_file(to_official(source.state_dict(), FINETUNED), tmp_path / "finetuned.safetensors")
    started = start_classifier(classifier(), tmp_path / "finetuned.safetensors")
    assert set(started.dropped) == {"fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"}


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (
            ViTSpec(width=8, depth=2, heads=2, patch=4),
            r"encoder.patch_embed.weight is \(8, 3, 2, 8, 8\) there and \(8, 3, 2, 4, 4\) in this recipe's model",
        ),
        (
            ViTSpec(width=8, depth=3, heads=2, patch=8),
            r"model.safetensors: lacks encoder.blocks.2\..* and 12 more tensors of this",
        ),
        (
            ViTSpec(width=8, depth=1, heads=2, patch=8),
            r"model.safetensors: has encoder.blocks.1\..* and 12 more tensors for which",
        ),
    ],
    ids=["patch", "deeper", "shallower"],
)
def test_another_shape_is_one_clear_line(tmp_path: Path, encoder: ViTSpec, message: str) -> None:
    run = saved(autoencoder(), tmp_path / "run")
    with pytest.raises(ValueError, match=message) as error:
        start_classifier(classifier(encoder), run)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=message):
        start_whole(autoencoder(encoder), run)


def test_what_is_no_checkpoint_is_one_clear_line(tmp_path: Path) -> None:
    whole = saved(autoencoder(), tmp_path / "run") / "model.safetensors"
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole.read_bytes()[:-100])
    short = tmp_path / "short.safetensors"
    short.write_bytes(b"abc")
    other = tmp_path / "other.safetensors"
    save_file({"x": torch.ones(1)}, other)
    (tmp_path / "empty").mkdir()
    cut_pickle = tmp_path / "cut.pth"
    torch.save({"model": autoencoder().state_dict()}, cut_pickle)
    cut_pickle.write_bytes(cut_pickle.read_bytes()[:-300])
    no_tensors = tmp_path / "list.pth"
    torch.save([1, 2], no_tensors)
    for path, message in [
        (tmp_path / "none", "no such file or folder"),
        (tmp_path / "empty", "holds no model/model.safetensors"),
        (cut, "cut.safetensors: truncated, or not a safetensors checkpoint"),
        (short, "truncated, or not a safetensors checkpoint"),
        (cut_pickle, "truncated, or not a checkpoint"),
        (other, "no encoder among its tensors"),
        (no_tensors, "no tensors at the top"),
    ]:
        with pytest.raises(ValueError, match=message) as error:
            encoder_weights(path)
        assert "\n" not in str(error.value)
        assert str(path) in str(error.value)
