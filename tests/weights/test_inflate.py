"""From images to clips: on a clip of one repeated frame an inflated model gives the features of the image model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tubelet.methods.autoencoder import MaskedAutoencoder, MaskedAutoencoderSpec
from tubelet.methods.classifier import Classifier, ClassifierSpec
from tubelet.methods.predictor import MaskedPredictorSpec
from tubelet.models.base import Encoder, EncoderSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.models.mvit.model import MViTSpec, MViTStage
from tubelet.models.vit import ViTSpec
from tubelet.recipe import Inflate, PretrainRecipe, write_recipe
from tubelet.rng import step_rng
from tubelet.spec import replace
from tubelet.targets.pixels import NormalisedPixels
from tubelet.types import ClipShape
from tubelet.weights.start import start_classifier, start_masked

IMAGE, CLIP = ClipShape(frames=1, size=32), ClipShape(frames=4, size=32)
VIT = ViTSpec(width=16, depth=2, heads=2, patch=8, tubelet=1, learnable_positions=True)
MVIT = MViTSpec(
    width=16, depth=2, heads=1, stages=(MViTStage(start=1),), kv_stride=(1, 2, 2), class_token=False,
    patch_kernel=(1, 7, 7), patch_stride=(1, 4, 4), patch_padding=(0, 3, 3), pool_kernel=(1, 3, 3), relative_time=False,
)  # fmt: skip
OF_CLIPS: dict[str, Any] = {
    "patch_kernel": (3, 7, 7), "patch_stride": (2, 4, 4), "patch_padding": (1, 3, 3), "pool_kernel": (3, 3, 3),
}  # fmt: skip
PAIRS: dict[str, tuple[EncoderSpec, EncoderSpec]] = {
    "vit": (VIT, replace(VIT, tubelet=2)),
    "vit, one frame a cube": (VIT, VIT),
    "vit, fixed positions of the image": (
        replace(VIT, learnable_positions=False),
        replace(VIT, learnable_positions=False, tubelet=2, positions=ClipShape(frames=2, size=32)),
    ),
    "mvit": (MVIT, replace(MVIT, **OF_CLIPS, relative_time=True)),
    "mvit, without relative time": (MVIT, replace(MVIT, **OF_CLIPS)),
    "mvit, tables": (
        replace(MVIT, absolute_positions=True),
        replace(MVIT, **OF_CLIPS, absolute_positions=True, relative_time=True),
    ),
    "mvit, an image model that has time": (
        replace(MVIT, pool_kernel=(3, 3, 3), relative_time=True, patch_kernel=(3, 7, 7), patch_padding=(1, 3, 3)),
        replace(MVIT, **OF_CLIPS, relative_time=True),
    ),
}


def image_run(spec: EncoderSpec, folder: Path) -> tuple[Path, Encoder]:
    """A pre-training run on images, with random weights, none of them at its first value."""
    recipe = PretrainRecipe(name="images", clip=IMAGE, model=MaskedPredictorSpec(encoder=spec))
    with step_rng(1, 1):
        method = recipe.model.build(IMAGE, recipe.target).eval()
        for parameter in method.parameters():
            nn.init.normal_(parameter, std=0.2)
    folder.mkdir()
    save_file(method.state_dict(), folder / "model.safetensors")
    write_recipe(recipe, folder / "recipe.yaml")
    return folder, method.encoder


def pictures() -> Tensor:
    return torch.randint(256, (2, 3, 1, 32, 32), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)


def video_classifier(spec: EncoderSpec) -> Classifier:
    with step_rng(2, 2):
        return ClassifierSpec.model_validate({"encoder": spec, "pooling": "normed_mean"}).build(CLIP, 3).eval()


@pytest.mark.parametrize("how", ["centre", "mean"])
@pytest.mark.parametrize(("image", "video"), PAIRS.values(), ids=PAIRS.keys())
@torch.no_grad()
def test_a_repeated_frame_gives_the_features_of_the_image(
    tmp_path: Path, image: EncoderSpec, video: EncoderSpec, how: Inflate
) -> None:
    path, encoder = image_run(image, tmp_path / "images")
    classifier = video_classifier(video)
    started = start_classifier(classifier, path, inflate=how)
    wanted = encoder(pictures())
    found = classifier.encoder(pictures().expand(-1, -1, 4, -1, -1).contiguous())
    steps = found.unflatten(1, (-1, wanted.shape[1]))
    assert steps.shape[1] == CLIP.frames // video.cube.frames
    for step in steps.unbind(1):
        torch.testing.assert_close(step, wanted, rtol=1e-5, atol=1e-5)
    is_longer = classifier.encoder.get_parameter("patch_embed.weight").shape[2] > 1
    assert any(f"({how})" in note for note in started.notes) == is_longer


def test_a_moving_clip_tells_the_two_ways_apart(tmp_path: Path) -> None:
    path, encoder = image_run(VIT, tmp_path / "images")
    kernel = encoder.get_parameter("patch_embed.weight")
    for how, parts in (("centre", (0.0, 1.0)), ("mean", (0.5, 0.5))):
        classifier = video_classifier(replace(VIT, tubelet=2))
        start_classifier(classifier, path, inflate=how)  # type: ignore[arg-type]
        found = classifier.encoder.get_parameter("patch_embed.weight")
        for frame, part in enumerate(parts):
            assert torch.equal(found[:, :, frame], part * kernel[:, :, 0])


def test_the_mean_leaves_out_the_frame_of_the_cube_before(tmp_path: Path) -> None:
    path, encoder = image_run(MVIT, tmp_path / "images")
    classifier = video_classifier(replace(MVIT, **OF_CLIPS))
    start_classifier(classifier, path, inflate="mean")
    kernel, found = (one.get_parameter("patch_embed.weight") for one in (encoder, classifier.encoder))
    assert not found[:, :, 0].any()
    assert torch.equal(found[:, :, 1], kernel[:, :, 0] / 2)
    assert torch.equal(found[:, :, 2], kernel[:, :, 0] / 2)


def test_fixed_positions_are_made_anew_and_a_note_says_how_to_keep_those_of_the_image(tmp_path: Path) -> None:
    path, _ = image_run(replace(VIT, learnable_positions=False), tmp_path / "images")
    started = start_classifier(video_classifier(replace(VIT, learnable_positions=False, tubelet=2)), path)
    (note,) = [note for note in started.notes if "positions" in note]
    assert "images of 32 x 32; positions are made anew for 4 frames of 32 x 32" in note
    assert note.endswith("set model.encoder.positions='{frames: 2, size: 32}'")


def test_learnt_positions_of_smaller_images_are_interpolated_in_space(tmp_path: Path) -> None:
    path, encoder = image_run(VIT, tmp_path / "images")
    with step_rng(2, 2):
        spec = ClassifierSpec.model_validate({"encoder": replace(VIT, tubelet=2)})
        classifier = spec.build(ClipShape(frames=4, size=48), 3)
    started = start_classifier(classifier, path)
    table = classifier.encoder.get_parameter("pos_embed").unflatten(1, (2, 36))
    assert torch.equal(table[:, 0], table[:, 1])
    assert not torch.equal(table[:, 0, :16], encoder.get_parameter("pos_embed"))
    assert "positions learnt for images of 32 x 32 are interpolated to 4 frames of 48 x 48" in started.notes


def test_a_class_token_is_said_to_see_more_tokens(tmp_path: Path) -> None:
    path, _ = image_run(replace(MVIT, class_token=True), tmp_path / "images")
    started = start_classifier(video_classifier(replace(MVIT, **OF_CLIPS, class_token=True)), path)
    assert any("class token attends to the tokens of every frame" in note for note in started.notes)


def autoencoder(spec: ViTSpec) -> MaskedAutoencoder:
    with step_rng(3, 3):
        return MaskedAutoencoderSpec(encoder=spec, decoder=DecoderSpec(width=8, depth=1, heads=2)).build(
            CLIP, NormalisedPixels()
        )


def test_pretraining_starts_from_images_too(tmp_path: Path) -> None:
    path, encoder = image_run(VIT, tmp_path / "images")
    method = autoencoder(replace(VIT, tubelet=2))
    started = start_masked(method, path, part="encoder", inflate="mean")
    assert any("inflated to 2 frames (mean)" in note for note in started.notes)
    block = "blocks.1.mlp.fc1.weight"
    assert torch.equal(method.encoder.get_parameter(block), encoder.get_parameter(block))


@pytest.mark.parametrize(
    ("image", "video", "said"),
    [
        (VIT, replace(VIT, tubelet=2, patch=16), "shapes do not fit: encoder.pos_embed"),
        (VIT, replace(VIT, tubelet=2, learnable_positions=False), "set model.encoder.learnable_positions=true"),
        (replace(VIT, learnable_positions=False), replace(VIT, tubelet=2), "encoder.learnable_positions=false"),
        (replace(VIT, layer_scale=0.1), replace(VIT, tubelet=2), "set model.encoder.layer_scale=0.1"),
        (VIT, replace(VIT, tubelet=2, layer_scale=0.1), "set model.encoder.layer_scale=null"),
        (VIT, replace(MVIT, **OF_CLIPS), "shapes do not fit: encoder.patch_embed.weight"),
    ],
    ids=["patch", "learnt", "fixed", "scaled", "not scaled", "another encoder"],
)
def test_what_does_not_fit_is_one_line(tmp_path: Path, image: EncoderSpec, video: EncoderSpec, said: str) -> None:
    path, _ = image_run(image, tmp_path / "images")
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        start_classifier(video_classifier(video), path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
