"""Where to start from: runs, checkpoints, files, released weights; and one clear line for what does not fit."""

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_vit import vit
from safetensors.torch import save_file
from toy_run import Notes

from tubelet.methods.autoencoder import MaskedAutoencoder, MaskedAutoencoderSpec
from tubelet.methods.classifier import Classifier, ClassifierSpec, Finetuning
from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.nn.mixing import Mixing
from tubelet.nn.position import sinusoid, stretch
from tubelet.recipe import FinetuneRecipe, override
from tubelet.runs.finetune import first_classifier
from tubelet.targets.pixels import NormalisedPixels
from tubelet.types import ClipShape
from tubelet.weights.export.huggingface import to_huggingface
from tubelet.weights.read import Hints, read_model, write_imported
from tubelet.weights.start import encoder_weights, start_classifier, start_whole, weights_file
from tubelet.weights.tensors.rename import to_official
from tubelet.weights.videomae.names import FINETUNED, PRETRAINED

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
    assert torch.equal(found["patch_embed.weight"], encoder.get_parameter("patch_embed.weight"))


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
    with pytest.raises(ValueError, match=r"code.pth: refused: to load it would call pathlib.PosixPath"):
        encoder_weights(tmp_path / "code.pth")


def test_a_released_classifier_is_a_start_too(tmp_path: Path) -> None:
    source = classifier()
    save_file(to_official(source.state_dict(), FINETUNED), tmp_path / "finetuned.safetensors")
    started = start_classifier(classifier(), tmp_path / "finetuned.safetensors")
    assert set(started.dropped) == {"fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"}


@pytest.mark.parametrize("places", [["model"], ["module"], ["state_dict"], ["state_dict", "model"]])
@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod.", "model.", "backbone."])
def test_released_files_are_starts_in_every_wrapping(tmp_path: Path, prefix: str, places: list[str]) -> None:
    source = autoencoder()
    content: dict[str, Any] = {prefix + n: t for n, t in to_official(source.state_dict(), PRETRAINED).items()}
    for place in reversed(places):
        content = {place: content}
    torch.save(content, tmp_path / "official.pth")
    model = classifier()
    started = start_classifier(model, tmp_path / "official.pth")
    assert set(started.loaded) == {name for name in model.state_dict() if name.startswith("encoder.")}
    assert all(torch.equal(t, source.encoder.state_dict()[n]) for n, t in model.encoder.state_dict().items())
    assert start_whole(autoencoder(), tmp_path / "official.pth").dropped == ()


def test_a_hugging_face_folder_is_a_start(tmp_path: Path) -> None:
    source = autoencoder()
    torch.save({"model": to_official(source.state_dict(), PRETRAINED)}, tmp_path / "official.pth")
    to_huggingface(read_model(tmp_path / "official.pth", Hints(2, 2, 4, 16)), tmp_path / "hf")
    model, whole = classifier(), autoencoder()
    start_classifier(model, tmp_path / "hf")
    start_whole(whole, tmp_path / "hf")
    for built in (model, whole):
        assert all(torch.equal(t, source.encoder.state_dict()[n]) for n, t in built.encoder.state_dict().items())


LONGER = ClipShape(frames=8, size=24)


def released(model: torch.nn.Module, folder: Path, **options: int) -> Path:
    pairs = FINETUNED if isinstance(model, Classifier) else PRETRAINED
    content = {"model": to_official(model.state_dict(), pairs), "args": argparse.Namespace(**options)}
    torch.save(content, folder / "official.pth")
    return folder / "official.pth"


def test_learnt_positions_of_another_clip_are_stretched_and_a_note_says_so(tmp_path: Path) -> None:
    positioned = ViTSpec(width=8, depth=2, heads=2, patch=8, learnable_positions=True)
    source = classifier(positioned)
    path = released(source, tmp_path, num_frames=4, input_size=16)
    model = ClassifierSpec(encoder=positioned).build(LONGER, 5)
    started = start_classifier(model, path)
    old, new = CLIP.grid(positioned.cube), LONGER.grid(positioned.cube)
    assert torch.equal(vit(model).pos_embed, stretch(vit(source).pos_embed, old, new))
    assert started.notes == ("positions learnt for 4 frames of 16 x 16 are interpolated to 8 frames of 24 x 24",)
    assert start_classifier(classifier(positioned), path).notes == ()
    write_imported(read_model(path, Hints(heads=2)), tmp_path / "run")
    again = ClassifierSpec(encoder=positioned).build(LONGER, 5)
    assert start_classifier(again, tmp_path / "run").notes == started.notes
    assert torch.equal(vit(again).pos_embed, vit(model).pos_embed)


def test_fixed_positions_are_made_anew_and_a_note_says_how_to_stretch_them(tmp_path: Path) -> None:
    for known, said in [
        ({"num_frames": 4, "input_size": 16}, "4 frames of 16 x 16;"),
        ({}, "16 frames of 224 x 224 (as"),
    ]:
        path = released(autoencoder(), tmp_path, **known)
        model = ClassifierSpec(encoder=ENCODER).build(LONGER, 5)
        (note,) = start_classifier(model, path).notes
        assert torch.equal(vit(model).pos_embed, sinusoid(model.encoder.grid.tokens, 8))
        assert said in note
        setting = note.split("set ")[1].replace("'", "")
        recipe = override(FinetuneRecipe(name="x", model=ClassifierSpec(encoder=ENCODER), clip=LONGER), [setting])
    assert recipe.model.encoder == ENCODER.model_copy(update={"positions": ClipShape()})
    spec = ENCODER.model_copy(update={"positions": CLIP})
    (note,) = start_classifier(ClassifierSpec(encoder=spec).build(LONGER, 5), path).notes
    assert note == "positions of 4 frames of 16 x 16 are interpolated to 8 frames of 24 x 24"
    whole = MaskedAutoencoderSpec(encoder=ENCODER, decoder=DECODER).build(LONGER, NormalisedPixels())
    assert "model.encoder.positions" in start_whole(whole, path).notes[0]


def test_a_run_says_what_became_of_positions(tmp_path: Path) -> None:
    path = released(autoencoder(), tmp_path, num_frames=4, input_size=16)
    recipe = FinetuneRecipe(name="x", model=ClassifierSpec(encoder=ENCODER), clip=LONGER, classes=3, start=str(path))
    watch = Notes()
    first_classifier(recipe, watch)
    assert any("model.encoder.positions" in line for line in watch.lines)


def test_a_file_that_wants_to_run_code_is_no_start(tmp_path: Path) -> None:
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "code.pth")
    with pytest.raises(ValueError, match=r"code.pth: refused"):
        start_classifier(classifier(), tmp_path / "code.pth")


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
        (cut_pickle, "truncated: the end of the file is missing"),
        (other, "no encoder among its tensors"),
        (no_tensors, "no tensors at the top"),
    ]:
        with pytest.raises(ValueError, match=message) as error:
            encoder_weights(path)
        assert "\n" not in str(error.value)
        assert str(path) in str(error.value)
