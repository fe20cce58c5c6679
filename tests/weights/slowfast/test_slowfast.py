"""SlowFast's checkpoints: recognised by their names, renamed, read whole or as a start, refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from tubelet.masks import CubeMask
from tubelet.methods.classifier import Classifier, ClassifierSpec
from tubelet.models.mvit.model import MViT, MViTSpec, MViTStage
from tubelet.recipe import FinetuneRecipe, PretrainRecipe
from tubelet.spec import replace
from tubelet.targets.hog import Hog
from tubelet.types import ClipShape
from tubelet.video.sample import Span
from tubelet.weights.read import read_model
from tubelet.weights.slowfast.names import CLASSIFIER, MASKFEAT, MEAN_CLASSIFIER
from tubelet.weights.start import start_classifier
from tubelet.weights.tensors.rename import to_official

CLIP = ClipShape(frames=4, size=64)
SPEC = MViTSpec(width=8, depth=5, stages=(MViTStage(start=1), MViTStage(start=3)))
MASKED = replace(SPEC, widen_in="mlp", last_stage_stride=1)


def classifier(spec: MViTSpec = SPEC, pooling: str = "class") -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ClassifierSpec.model_validate({"encoder": spec, "pooling": pooling}).build(CLIP, 3).eval()


def pretraining() -> dict[str, Tensor]:
    """Under their names, with a head and the filters of the target."""
    encoder = MViT(MASKED, CLIP)
    theirs = to_official({f"encoder.{name}": value for name, value in encoder.state_dict().items()}, MASKFEAT)
    head = {"pred_head.transforms.0.0.weight": torch.ones(32), "pred_head.transforms.0.0.bias": torch.ones(32)}
    head |= {"pred_head.projections.0.weight": torch.ones(108, 32), "pred_head.projections.0.bias": torch.ones(108)}
    return {**theirs, **head, "hogs.0.weight_x": torch.ones(3, 1, 3, 3), "hogs.0.weight_y": torch.ones(3, 1, 3, 3)}


def save(folder: Path, state: dict[str, Tensor], settings: dict[str, Any] | None = None) -> Path:
    path = folder / "k400.pyth"
    content = {"epoch": 1, "model_state": state, "optimizer_state": {}}
    torch.save(content if settings is None else {**content, "cfg": yaml.safe_dump(settings)}, path)
    return path


@pytest.mark.parametrize(("pooling", "pairs"), [("class", CLASSIFIER), ("mean", MEAN_CLASSIFIER)])
def test_a_classifier_comes_back_with_its_whole_spec(pooling: str, pairs: Any, tmp_path: Path) -> None:
    spec = SPEC if pooling == "class" else replace(SPEC, widen_in="mlp")
    model = classifier(spec, pooling)
    imported = read_model(save(tmp_path, to_official(model.state_dict(), pairs)))
    assert imported.format == "SlowFast MViT classifier, 3 classes"
    assert imported.recipe.model == model.spec
    assert imported.recipe.clip == CLIP
    video = torch.randint(0, 256, (2, 3, 4, 64, 64), dtype=torch.uint8)
    assert torch.equal(imported.build_classifier()(video), model(video))
    assert any("what the head reads is not in the file" in note for note in imported.notes)
    assert any("strides are not in the file" in note for note in imported.notes)


def test_what_the_settings_say_goes_before_what_is_usual(tmp_path: Path) -> None:
    spec = replace(SPEC, kv_stride=(1, 4, 4), residual_pooling=False)
    state = to_official(classifier(spec, "mean").state_dict(), MEAN_CLASSIFIER)
    mvit = {
        "PATCH_STRIDE": [2, 4, 4], "POOL_KV_STRIDE_ADAPTIVE": [1, 4, 4], "RESIDUAL_POOLING": False,
        "USE_MEAN_POOLING": True,
    }  # fmt: skip
    data = {"SAMPLING_RATE": 3, "MEAN": [0.4, 0.5, 0.6], "STD": [0.1, 0.2, 0.3]}
    imported = read_model(save(tmp_path, state, {"MVIT": mvit, "DATA": data}))
    recipe = imported.recipe
    assert isinstance(recipe, FinetuneRecipe)
    encoder = recipe.model.encoder
    assert isinstance(encoder, MViTSpec)
    assert (encoder.kv_stride, encoder.residual_pooling) == ((1, 4, 4), False)
    assert encoder.colours.std == (0.1, 0.2, 0.3)
    assert recipe.data.sampler == Span(stride=3)
    assert recipe.model.pooling == "mean"
    assert imported.notes == ()


@pytest.mark.parametrize("text", ["!!python/object/apply:os.system ['false']", "[1, 2", "just text", "{MVIT: 3}"])
def test_settings_that_are_no_plain_data_are_not_looked_at(text: str, tmp_path: Path) -> None:
    path = tmp_path / "k400.pyth"
    torch.save({"model_state": to_official(classifier().state_dict(), CLASSIFIER), "cfg": text}, path)
    assert read_model(path).recipe.model.encoder == SPEC


def test_maskfeat_is_a_start_for_a_coarser_last_stage(tmp_path: Path) -> None:
    file = save(tmp_path, pretraining())
    target = classifier(replace(MASKED, last_stage_stride=None), "mean")
    started = start_classifier(target, file)
    table = "encoder.blocks.4.attention.relative.rel_pos_h"
    assert target.state_dict()[table].shape[0] == 7
    assert started.fresh == ("fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias")
    dropped = {"hogs.0.weight_x", "hogs.0.weight_y", "encoder.mask_token", "prediction_head.weight"}
    assert dropped <= set(started.dropped)
    assert any("4 position tables are interpolated" in note for note in started.notes)
    name = "encoder.blocks.4.attention.qkv.weight"
    assert torch.equal(target.state_dict()[name], pretraining_tensor(file, "blocks.4.attn.qkv.weight"))


def pretraining_tensor(file: Path, name: str) -> Tensor:
    found: Tensor = torch.load(file, weights_only=True)["model_state"][name]
    return found


def test_weights_that_widen_in_the_other_branch_are_refused_with_the_setting(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"get wider in mlp.*set model\.encoder\.widen_in=mlp"):
        start_classifier(classifier(), save(tmp_path, pretraining()))


def test_a_pretraining_file_is_read_whole(tmp_path: Path) -> None:
    imported = read_model(save(tmp_path, pretraining()))
    recipe = imported.recipe
    assert isinstance(recipe, PretrainRecipe)
    assert (imported.format, recipe.mask) == ("SlowFast MaskFeat pre-training", CubeMask())
    assert recipe.target == Hog(cell=4), "108 numbers of a token of 8 x 8 pixels"
    assert recipe.model.encoder.cube == MASKED.cube
    method = imported.build_predictor()
    assert torch.equal(method.prediction_head.weight, torch.ones(108, 32))


def test_an_encoder_without_its_head_is_read_as_one(tmp_path: Path) -> None:
    state = {name: value for name, value in pretraining().items() if not name.startswith("pred_head.")}
    imported = read_model(save(tmp_path, state))
    assert not imported.predicts
    assert imported.build_encoder().out_grid == MViT(MASKED, CLIP).out_grid


def test_a_head_of_unknown_width_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    state = {**pretraining(), "pred_head.projections.0.weight": torch.ones(7, 32)}
    with pytest.raises(ValueError, match=r"predicts 7 numbers a token; known targets of such a model: hog 27"):
        read_model(save(tmp_path, state))


def test_tensors_without_a_place_or_missing_ones_are_named(tmp_path: Path) -> None:
    state = to_official(classifier().state_dict(), CLASSIFIER)
    with pytest.raises(ValueError, match=r"no rule knows blocks\.0\.attn\.odd"):
        read_model(save(tmp_path, {**state, "blocks.0.attn.odd": torch.ones(1)}))
    del state["blocks.2.attn.pool_v.weight"]
    with pytest.raises(ValueError, match=r"lacks encoder\.blocks\.2\.attention\.pool_v\.weight"):
        read_model(save(tmp_path, state))
    del state["blocks.1.mlp.fc2.weight"]
    with pytest.raises(ValueError, match=r"lacks encoder\.blocks\.1\.mlp\.fc2\.weight: is it a part"):
        read_model(save(tmp_path, state))


def test_an_absolute_table_of_space_is_interpolated_too(tmp_path: Path) -> None:
    spec = replace(SPEC, absolute_positions=True)
    model = classifier(spec)
    file = save(tmp_path, to_official(model.state_dict(), CLASSIFIER))
    with torch.random.fork_rng():
        target = ClassifierSpec(encoder=spec, pooling="class").build(ClipShape(frames=8, size=32), 3)
    started = start_classifier(target, file)
    assert any("such as pos_embed" in note for note in started.notes)
    assert target.encoder.pos_embed_space is not None
    assert target.encoder.pos_embed_space.shape == (1, 64, 8)
