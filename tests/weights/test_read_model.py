"""One entrance for models of every origin; what comes in goes out as a run that every command takes."""

import argparse
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_vit import vit
from released import CLIP, ENCODER, HINTS, NAMES, autoencoder, classifier, clips, saved, theirs
from safetensors.torch import save_file

from tubelet.methods.classifier import Finetuning
from tubelet.models.vit import ViTSpec
from tubelet.nn.mixing import NO_MIXING
from tubelet.nn.position import sinusoid, stretch
from tubelet.pictures.reconstruct import load_autoencoder
from tubelet.recipe import FinetuneRecipe, PretrainRecipe, write_recipe
from tubelet.spec import replace as changed
from tubelet.targets.pixels import Pixels
from tubelet.types import ClipShape
from tubelet.video.sample import Segments, Span, Strided
from tubelet.weights.classifier import load_classifier
from tubelet.weights.export.huggingface import to_huggingface
from tubelet.weights.imported import Imported
from tubelet.weights.read import Hints, read_model, write_imported

EVERY = [
    ENCODER,
    ViTSpec(width=8, depth=2, heads=2, patch=8, cosine_attention=True, layer_scale=0.1),
    ViTSpec(width=44, depth=2, heads=2, patch=8, mlp_ratio=48 / 11, tubelet=1),
    ViTSpec(width=8, depth=2, heads=2, patch=8, learnable_positions=True),
]


def mistake(path: Path, hints: Hints = HINTS) -> str:
    with pytest.raises(ValueError, match=re.escape(str(path))) as error:
        read_model(path, hints)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("container", ["model", "module"])
@pytest.mark.parametrize("encoder", EVERY, ids=["plain", "cosine", "g", "learnt"])
def test_a_released_classifier_gives_the_same_logits(tmp_path: Path, encoder: ViTSpec, container: str) -> None:
    for pooling in ("mean", "first"):
        model = classifier(encoder, pooling=pooling)
        found = read_model(saved({container: theirs(model)}, tmp_path), HINTS)
        assert isinstance(found.recipe, FinetuneRecipe)
        assert (found.recipe.classes, found.recipe.model.pooling, found.recipe.clip) == (3, pooling, CLIP)
        assert torch.equal(found.build_classifier()(clips()), model(clips()))


@pytest.mark.parametrize("encoder", EVERY[:3], ids=["plain", "cosine", "g"])
def test_a_released_pretraining_gives_the_same_tokens_and_weights(tmp_path: Path, encoder: ViTSpec) -> None:
    model = autoencoder(encoder)
    found = read_model(saved({"model": theirs(model), "epoch": 1, "optimizer": {"state": {}}}, tmp_path), HINTS)
    built = found.build_autoencoder()
    assert torch.equal(built.encoder(clips()), model.encoder(clips()))
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in built.state_dict().items())
    assert torch.equal(found.build_encoder()(clips()), model.encoder(clips()))


def test_an_encoder_alone_is_a_model_without_decoder(tmp_path: Path) -> None:
    model = autoencoder()
    state = {name: tensor for name, tensor in theirs(model).items() if name.startswith("encoder.")}
    found = read_model(saved({"model": state}, tmp_path), HINTS)
    assert found.format == "VideoMAE encoder alone"
    assert isinstance(found.recipe, PretrainRecipe)
    assert not found.has_decoder
    assert torch.equal(found.build_encoder()(clips()), model.encoder(clips()))
    with pytest.raises(ValueError, match="no decoder in it"):
        found.build_autoencoder()


def test_options_of_the_script_stand_for_hints(tmp_path: Path) -> None:
    options = argparse.Namespace(
        num_frames=4, input_size=16, sampling_rate=2, mask_ratio=0.75, normlize_target=False, model="other"
    )
    found = read_model(saved({"model": theirs(autoencoder()), "args": options}, tmp_path), Hints(2, 2))
    assert isinstance(found.recipe, PretrainRecipe)
    assert found.recipe.clip == CLIP
    assert found.recipe.data.sampler == Strided(stride=2)
    assert found.recipe.mask.ratio == 0.75
    assert found.recipe.target == Pixels()
    assert found.notes == ()


def test_classifiers_are_tested_as_the_authors_test_them(tmp_path: Path) -> None:
    def recipe(classes: int, **options: Any) -> tuple[FinetuneRecipe, tuple[str, ...]]:
        content = {"module": theirs(classifier(classes=classes)), "args": argparse.Namespace(**options)}
        found = read_model(saved(content, tmp_path, "ft.pth"), HINTS)
        assert isinstance(found.recipe, FinetuneRecipe)
        return found.recipe, found.notes

    kinetics, notes = recipe(4)
    assert (kinetics.name, kinetics.data.sampler, kinetics.views.clips, notes) == ("ft", Span(stride=4), 5, ())
    something, notes = recipe(174)
    assert (something.data.sampler, something.views.clips, something.views.crops) == (Segments(), 2, 3)
    assert "Something-Something V2" in notes[0]
    assert recipe(4, data_set="SSV2")[0].data.sampler == Segments()


def test_half_precision_is_read_as_float32_and_said(tmp_path: Path) -> None:
    state = {name: tensor.half() for name, tensor in theirs(classifier()).items()}
    found = read_model(saved({"module": state}, tmp_path), HINTS)
    assert {tensor.dtype for tensor in found.state.values()} == {torch.float32}
    assert "float16" in found.notes[0]


def test_a_saved_fixed_table_is_dropped_and_tells_the_clip(tmp_path: Path) -> None:
    content = {"model": {**theirs(classifier()), "pos_embed": sinusoid(8, 8)}}
    found = read_model(saved(content, tmp_path), Hints(heads=2, frames=4))
    assert found.recipe.clip == CLIP
    assert found.dropped == ("pos_embed",)
    assert "has 8 rows, but a clip of 4 frames of 32 x 32" in mistake(
        tmp_path / "checkpoint.pth", replace(HINTS, size=32)
    )


def test_names_of_classes_are_checked(tmp_path: Path) -> None:
    path = saved({"model": theirs(classifier())}, tmp_path)
    assert read_model(path, replace(HINTS, names=NAMES)).names == NAMES
    assert "has 3 classes, but 2 names are given" in mistake(path, replace(HINTS, names=("a", "b")))
    pretrained = saved({"model": theirs(autoencoder())}, tmp_path, "pre.pth")
    assert "has no classes to be named" in mistake(pretrained, replace(HINTS, names=NAMES))


def test_what_does_not_fit_together_is_one_line_when_it_is_read(tmp_path: Path) -> None:
    whole = theirs(classifier())
    for name, content, said in [
        ("short.pth", {**whole, "blocks.1.norm1.weight": torch.ones(4)}, "encoder.blocks.1.norm1.weight is (4,) there"),
        (
            "less.pth",
            {n: t for n, t in whole.items() if n != "blocks.1.norm1.bias"},
            "lacks encoder.blocks.1.norm1.bias",
        ),
        ("headless.pth", {n: t for n, t in whole.items() if n != "head.bias"}, "lacks head.bias"),
        ("one.pth", {**whole, "head.weight": torch.ones(1, 8), "head.bias": torch.ones(1)}, "classes: Input should be"),
    ]:
        line = mistake(saved({"model": content}, tmp_path, name))
        assert name in line
        assert said in line


def run_of(model: Any, recipe: PretrainRecipe | FinetuneRecipe, folder: Path) -> Path:
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    write_recipe(recipe, folder / "recipe.yaml")
    return folder


def imported_from(model: Any, folder: Path) -> Imported:
    """The model as it comes from a released file."""
    return read_model(saved({"model": theirs(model)}, folder), HINTS)


def test_a_run_of_ours_is_read_wherever_one_points_in_it(tmp_path: Path) -> None:
    model = autoencoder()
    recipe = changed(imported_from(model, tmp_path).recipe, name="mine")
    run_of(model, recipe, tmp_path / "run/model")
    for path in ("run", "run/model", "run/model/model.safetensors"):
        found = read_model(tmp_path / path)
        assert (found.recipe, found.format) == (recipe, "tubelet pre-training run")
        assert torch.equal(found.build_autoencoder().encoder(clips()), model.encoder(clips()))


def test_a_checkpoint_of_an_unfinished_finetuning_is_read(tmp_path: Path) -> None:
    model = classifier()
    recipe = imported_from(model, tmp_path).recipe
    folder = tmp_path / "run/checkpoints/step-00000003"
    run_of(Finetuning(model, NO_MIXING), recipe, folder)
    (folder / "recipe.yaml").rename(tmp_path / "run/recipe.yaml")
    (tmp_path / "run/classes.txt").write_text("x\ny\nz\n")
    save_file(Finetuning(model, NO_MIXING).state_dict(), folder / "average.safetensors")
    for path in ("run", "run/checkpoints/step-00000003"):
        found = read_model(tmp_path / path)
        assert found.names == ("x", "y", "z")
        assert torch.equal(found.build_classifier()(clips()), model(clips()))
        assert "average.safetensors" in found.notes[0]
    averaged = read_model(folder / "average.safetensors")
    assert (averaged.recipe, averaged.notes) == (recipe, ())


def test_our_tensors_without_a_recipe_are_read_by_their_shapes(tmp_path: Path) -> None:
    model = classifier()
    save_file(model.state_dict(), tmp_path / "mine.safetensors")
    found = read_model(tmp_path / "mine.safetensors", HINTS)
    assert found.recipe.name == "mine"
    assert torch.equal(found.build_classifier()(clips()), model(clips()))
    assert "give --heads" in mistake(tmp_path / "mine.safetensors", Hints())


def test_hints_may_not_contradict_a_recipe(tmp_path: Path) -> None:
    model = autoencoder()
    run_of(model, imported_from(model, tmp_path).recipe, tmp_path / "run")
    assert read_model(tmp_path / "run", HINTS).state
    for hints, said in [
        (Hints(heads=4), "heads: its recipe says 2, not 4"),
        (Hints(decoder_heads=3), "decoder heads: its recipe says 2, not 3"),
        (Hints(frames=8), "frames it was trained with: its recipe says 4, not 8"),
        (Hints(size=8), "size it was trained with: its recipe says 16, not 8"),
    ]:
        assert said in mistake(tmp_path / "run", hints)


def test_a_run_whose_recipe_is_of_another_model_is_one_line(tmp_path: Path) -> None:
    deeper = autoencoder(changed(ENCODER, depth=3))
    run_of(autoencoder(), imported_from(deeper, tmp_path).recipe, tmp_path / "run")
    assert "lacks encoder.blocks.2" in mistake(tmp_path / "run")


def test_a_hugging_face_folder_is_read_by_the_same_entrance(tmp_path: Path) -> None:
    model = classifier()
    to_huggingface(replace(imported_from(model, tmp_path), names=NAMES), tmp_path / "hf")
    for path in (tmp_path / "hf", tmp_path / "hf/model.safetensors"):
        found = read_model(path)
        assert found.names == NAMES
        torch.testing.assert_close(found.build_classifier()(clips()), model(clips()), rtol=1e-4, atol=1e-4)
    released = saved({"model": theirs(model)}, tmp_path / "hf", "official.pth")
    assert read_model(released, HINTS).format.startswith("VideoMAE classifier")


@pytest.mark.parametrize("content", ["{}", '{"model_type": "vit"}'])
def test_a_folder_of_another_model_of_transformers_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    save_file(
        {"vit.embeddings.patch_embeddings.projection.weight": torch.ones(8, 3, 16, 16)}, tmp_path / "model.safetensors"
    )
    assert "an image ViT" in mistake(tmp_path)


def test_a_folder_without_a_model_names_a_file_to_give(tmp_path: Path) -> None:
    saved({"model": theirs(classifier())}, tmp_path, "mp_rank_00_model_states.pt")
    assert "such as" in mistake(tmp_path)
    assert "mp_rank_00_model_states.pt" in mistake(tmp_path)


# Out: a run of ours


def test_a_classifier_goes_out_as_a_finished_run(tmp_path: Path) -> None:
    model = classifier()
    imported = imported_from(model, tmp_path)
    folder = write_imported(imported, tmp_path / "run")
    assert folder == tmp_path / "run/model"
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "recipe.yaml", "classes.txt"}
    loaded = load_classifier(tmp_path / "run")
    assert loaded.names == ("0", "1", "2")
    assert torch.equal(loaded.classifier(clips()), model(clips()))
    again = read_model(tmp_path / "run")
    assert again.recipe == imported.recipe
    write_imported(replace(imported, names=NAMES), tmp_path / "run")
    assert load_classifier(tmp_path / "run").names == NAMES
    assert not list((tmp_path / "run").glob(".*"))


def test_tensors_that_lie_in_one_block_of_memory_go_out_one_by_one(tmp_path: Path) -> None:
    model = classifier()
    flat = torch.cat([tensor.flatten() for tensor in theirs(model).values()])
    views: dict[str, torch.Tensor] = {}
    for name, tensor in theirs(model).items():
        place = sum(view.numel() for view in views.values())
        views[name] = flat[place : place + tensor.numel()].view(tensor.shape)
    write_imported(read_model(saved({"module": views}, tmp_path), HINTS), tmp_path / "run")
    assert torch.equal(load_classifier(tmp_path / "run").classifier(clips()), model(clips()))
    size = (tmp_path / "run/model/model.safetensors").stat().st_size
    assert size < 4 * flat.numel() + 5000


def test_a_pretraining_goes_out_as_a_finished_run(tmp_path: Path) -> None:
    model = autoencoder()
    folder = write_imported(imported_from(model, tmp_path), tmp_path / "run")
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "recipe.yaml"}
    loaded = load_autoencoder(tmp_path / "run")
    assert torch.equal(loaded.method.encoder(clips()), model.encoder(clips()))


@pytest.mark.parametrize("learnt", [False, True])
def test_other_clips_are_written_with_stretched_positions(tmp_path: Path, learnt: bool) -> None:
    model = classifier(changed(ENCODER, learnable_positions=learnt))
    longer = ClipShape(frames=8, size=24)
    imported = imported_from(model, tmp_path).resized(longer)
    assert "4 frames of 16 x 16 are interpolated to 8 frames of 24 x 24" in imported.notes[-1]
    write_imported(imported, tmp_path / "run")
    loaded = load_classifier(tmp_path / "run").classifier
    old, new = CLIP.grid(ENCODER.cube), longer.grid(ENCODER.cube)
    assert torch.equal(vit(loaded).pos_embed, stretch(vit(model).pos_embed, old, new))
    assert torch.equal(loaded(clips(clip=longer)), read_model(tmp_path / "run").build_classifier()(clips(clip=longer)))


def test_nothing_is_written_into_a_folder_of_a_training_run_or_a_file(tmp_path: Path) -> None:
    imported = imported_from(classifier(), tmp_path)
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds the checkpoints of a training run"):
        write_imported(imported, tmp_path / "run")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="cannot be written"):
        write_imported(imported, tmp_path / "file")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoints"]
