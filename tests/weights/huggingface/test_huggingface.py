"""Folders of transformers: what is said of odd ones, what is refused, what lies in ours. Parity is in tests/parity."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace as with_fields
from pathlib import Path
from typing import Any

import pytest
import torch
from exports import CLIP, ENCODER, autoencoder, classifier
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tubelet.spec import replace
from tubelet.targets.hog import Hog
from tubelet.types import ClipShape
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.export.huggingface import to_huggingface
from tubelet.weights.huggingface.folder import matches
from tubelet.weights.read import read_model
from tubelet.weights.tensors.files import OpenedWeights

LAYER = "videomae.encoder.layer.1.attention.attention."
BIASES = tuple(
    f"videomae.encoder.layer.{i}.attention.attention.{name}" for i in (0, 1) for name in ("q_bias", "v_bias")
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A classifier as transformers writes it."""
    to_huggingface(classifier(names=("wave", "point", "clap")), tmp_path / "theirs")
    return tmp_path / "theirs"


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_tensors(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


def is_videomae(folder: Path) -> bool:
    return matches(OpenedWeights(folder))


def refused(folder: Path) -> str:
    with pytest.raises(ValueError, match=r".") as error:
        read_model(folder).build_classifier()
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)
    return str(error.value).replace(f"{folder}/", "")


# In


def test_only_a_folder_with_a_videomae_config_is_one(folder: Path, tmp_path: Path) -> None:
    assert is_videomae(folder)
    assert is_videomae(folder / "model.safetensors")
    assert not is_videomae(tmp_path)
    change_config(folder, model_type="timesformer")
    assert not is_videomae(folder)
    assert "give the folder, which needs its config.json" in refused(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "relu"}, "config.json: hidden_act is 'relu'; tubelet builds 'gelu' only"),
        ({"num_channels": 1}, "config.json: num_channels is 1; tubelet builds 3 only"),
        ({"image_size": [16, 24]}, "config.json: image_size is 16 x 24; tubelet takes squares only"),
        ({"patch_size": [8, 4]}, "config.json: patch_size is 8 x 4; tubelet takes squares only"),
        ({"image_size": 20}, "config.json: clip.size 20 is not a multiple of the patch 8"),
        ({"num_attention_heads": 3}, "config.json: width 8 is not a multiple of heads 3"),
        ({"hidden_size": 0}, "config.json: hidden_size: Input should be greater than 0 (got 0)"),
        ({"num_hidden_layers": 3}, "model.safetensors: lacks encoder.blocks.2.norm1.weight and 12 more tensors"),
        ({"num_hidden_layers": 1}, "model.safetensors: has encoder.blocks.1.attention.q_bias and 12 more"),
        ({"intermediate_size": 16}, "model.safetensors: shapes do not fit: encoder.blocks.0.mlp.fc1.weight is (32, 8)"),
        ({"id2label": {"0": "a", "1": "b"}}, "config.json: id2label has 2 entries but the classifier 3 outputs"),
        ({"id2label": {"1": "a", "2": "b", "3": "c"}}, "config.json: id2label has 3 entries but the classifier 3 out"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_config_that_does_not_fit_is_one_clear_line(folder: Path, changes: dict[str, Any], message: str) -> None:
    change_config(folder, **changes)
    assert refused(folder).startswith(message)


def test_a_damaged_folder_is_one_clear_line(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "truncated" in refused(folder)
    weights.unlink()
    assert "no weights; give it model.safetensors or" in refused(folder)
    torch.save({"code": print}, folder / "pytorch_model.bin")
    assert "pytorch_model.bin: " in refused(folder)
    (folder / "config.json").write_text("{")
    assert refused(folder).startswith("config.json: not JSON")
    (folder / "config.json").write_text("[1]")
    assert refused(folder) == "config.json: not a JSON object"
    (folder / "config.json").unlink()
    assert "holds no model/model.safetensors" in refused(folder)


def test_a_folder_with_a_missing_or_foreign_shard_is_one_clear_line(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    index = folder / "model.safetensors.index.json"
    places = dict.fromkeys(load_file(folder / "a.safetensors"), "a.safetensors")
    for weight_map, message in [
        ({**places, "more": "b.safetensors"}, "b.safetensors: no such file"),
        ({**places, "more": "a.safetensors"}, "do not hold the same tensors (more)"),
        ({**places, "more": "../a.safetensors"}, "'../a.safetensors' is not the name of a file beside it"),
        ({}, "has no weight_map"),
    ]:
        index.write_text(json.dumps({"weight_map": weight_map}))
        assert message in refused(folder)
    index.write_text(json.dumps({"weight_map": places}))
    read_model(folder).build_classifier()


def test_lost_biases_are_a_loud_error(folder: Path) -> None:
    """Some versions of transformers lose them; a model without them runs, and is wrong."""
    change_tensors(folder, lambda state: [state.pop(name) for name in BIASES])
    message = refused(folder)
    assert message.startswith(
        "model.safetensors: lacks videomae.encoder.layer.0.attention.attention.q_bias although config.json says "
        "qv_bias true; some 5.x versions of transformers lose these biases"
    )
    change_config(folder, qv_bias=False)
    state = read_model(folder).state
    assert torch.equal(state["encoder.blocks.1.attention.v_bias"], torch.zeros(8))


def test_one_lost_bias_is_an_error_too(folder: Path) -> None:
    change_tensors(folder, lambda state: state.pop(BIASES[3]))
    assert refused(folder).startswith(f"model.safetensors: lacks {BIASES[3]} although")


def test_biases_that_the_config_denies_are_an_error(folder: Path) -> None:
    change_config(folder, qv_bias=False)
    assert "q_bias although config.json says qv_bias false" in refused(folder)
    change_config(folder, qkv_bias=True)  # the older name, which transformers lets win
    read_model(folder).build_classifier()


def test_biases_that_are_all_zero_are_pointed_out(folder: Path) -> None:
    assert read_model(folder).notes == ()
    change_tensors(folder, lambda state: [state[name].zero_() for name in BIASES])
    assert "every bias of q and v is zero" in read_model(folder).notes[0]


def test_both_spellings_of_the_biases_are_read(folder: Path) -> None:
    before = read_model(folder).state

    def respell(state: dict[str, Tensor]) -> None:
        for name in BIASES:
            state[name.replace("q_bias", "query.bias").replace("v_bias", "value.bias")] = state.pop(name)

    change_tensors(folder, respell)
    after = read_model(folder).state
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_bias_of_k_is_dropped_only_where_it_is_zero(folder: Path) -> None:
    change_tensors(folder, lambda state: state.update({f"{LAYER}key.bias": torch.zeros(8)}))
    imported = read_model(folder)
    assert imported.dropped == (f"{LAYER}key.bias",)
    imported.build_classifier()
    change_tensors(folder, lambda state: state[f"{LAYER}key.bias"].add_(1))
    assert f"{LAYER}key.bias is not zero" in refused(folder)


def test_a_tensor_that_no_rule_knows_is_an_error(folder: Path) -> None:
    change_tensors(folder, lambda state: state.update({"videomae.extra": torch.ones(1)}))
    assert "no rule knows videomae.extra" in refused(folder)
    change_tensors(folder, lambda state: [state.pop("videomae.extra"), state.pop(f"{LAYER}key.weight")])
    assert "lacks the matrix of query or key or value" in refused(folder)


def test_a_norm_that_the_classifier_does_not_use_is_dropped_and_listed(folder: Path) -> None:
    norm = {f"videomae.layernorm.{part}": torch.ones(8) for part in ("weight", "bias")}
    change_tensors(folder, lambda state: state.update(norm))
    imported = read_model(folder)
    assert sorted(imported.dropped) == sorted(norm)
    imported.build_classifier()


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["b", "a", "c"], ("b", "a", "c")),
        (["LABEL_0", "LABEL_1", "LABEL_2"], None),
        (["LABEL_0", "cat", "LABEL_2"], ("LABEL_0", "cat", "LABEL_2")),
        (["a", "b", "a"], ("a (0)", "b", "a (2)")),
        ([" two\nlines ", "", "x"], ("two lines", "(1)", "x")),
        (["a", "a", "a (1)"], ("a (0)", "a (1)", "a (1)'")),
        ([0, 1, 2], ("0", "1", "2")),
    ],
    ids=str,
)
def test_class_names_are_unique_and_in_the_order_of_the_logits(
    folder: Path, given: list[str], names: tuple[str, ...] | None
) -> None:
    change_config(folder, id2label={str(i): given[i] for i in (2, 0, 1)})
    imported = read_model(folder)
    assert imported.names == names
    assert bool(imported.notes) == (names is not None and any(name.endswith((")", "'")) for name in names))


def test_two_unnamed_classes_which_transformers_does_not_write_are_read(folder: Path) -> None:
    change_config(folder, id2label=None)
    assert read_model(folder).names is None


@pytest.mark.parametrize("name", ["preprocessor_config.json", "video_preprocessor_config.json"])
def test_a_processor_with_other_colours_is_pointed_out(folder: Path, name: str) -> None:
    (folder / name).write_text(json.dumps({"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}))
    (note,) = read_model(folder).notes
    assert note.startswith(f"{name} says mean [0.5, 0.5, 0.5] and std [0.5, 0.5, 0.5]; VideoMAE is trained with")
    (folder / name).write_text(json.dumps({"image_mean": None, "do_resize": True}))
    assert read_model(folder).notes == ()


def test_half_precision_is_taken_as_float32(folder: Path) -> None:
    change_tensors(folder, lambda state: state.update({name: value.half() for name, value in state.items()}))
    imported = read_model(folder)
    assert imported.notes == ("its numbers are float16; taken as float32",)
    assert {value.dtype for value in imported.state.values()} == {torch.float32}


def test_frames_are_spread_for_the_classes_of_something_something(folder: Path) -> None:
    heads = {"classifier.weight": torch.ones(174, 8), "classifier.bias": torch.ones(174)}
    change_tensors(folder, lambda state: state.update(heads))
    change_config(folder, id2label={str(label): f"LABEL_{label}" for label in range(174)})
    imported = read_model(folder)
    assert imported.recipe.data.sampler.kind == "segments"
    assert "174 classes, as Something-Something V2 has" in imported.notes[0]
    change_config(folder, id2label={"0": "a"})
    assert "id2label has 1 entries but the classifier 174 outputs" in refused(folder)


# Out


def test_the_folder_says_what_the_model_is(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["VideoMAEForVideoClassification"]
    assert config["id2label"] == {"0": "wave", "1": "point", "2": "clap"}
    assert (config["num_frames"], config["image_size"], config["patch_size"]) == (4, 16, 8)
    assert (config["layer_norm_eps"], config["use_mean_pooling"], config["dtype"]) == (1e-6, True, "float32")
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    for name in ("preprocessor_config.json", "video_preprocessor_config.json"):
        fields = json.loads((folder / name).read_text())
        assert fields["image_mean"] == [0.485, 0.456, 0.406]
        assert fields["image_std"] == [0.229, 0.224, 0.225]
        assert (fields["size"], fields["crop_size"]) == ({"shortest_edge": 16}, {"height": 16, "width": 16})
    card = (folder / "README.md").read_text()
    assert "# waves\n" in card
    assert "[B, 4, 3, 16, 16]" in card
    assert "**Classes** 3, in `config.json`: wave, point, clap" in card


def test_classes_without_names_are_numbered(tmp_path: Path) -> None:
    to_huggingface(classifier(), tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text())["id2label"]["2"] == "LABEL_2"
    assert read_model(tmp_path / "out").names is None


@pytest.mark.parametrize(
    ("imported", "reason"),
    [
        (classifier(replace(ENCODER, cosine_attention=True)), "cosine attention"),
        (classifier(replace(ENCODER, learnable_positions=True)), "learnt positions"),
        (classifier().resized(ClipShape(frames=8, size=16)), "positions stretched to another clip"),
        (autoencoder(cosine_attention=True), "cosine attention"),
        (autoencoder(norm_eps=1e-3), "eps of the decoder's norms that differs from the encoder's"),
        (
            with_fields(autoencoder(), recipe=replace(autoencoder().recipe, target=Hog())),
            "decoder for other targets than pixels",
        ),
    ],
    ids=["cosine", "learnt", "stretched", "decoder cosine", "decoder eps", "target"],
)
def test_what_transformers_cannot_express_is_refused(imported: Checkpoint, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"run/model: VideoMAE in transformers has no .*{reason}") as error:
        to_huggingface(imported, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_positions_named_but_not_stretched_are_no_hindrance(tmp_path: Path) -> None:
    to_huggingface(classifier(replace(ENCODER, positions=CLIP)), tmp_path / "out")
    assert is_videomae(tmp_path / "out")


def test_a_headless_classifier_goes_out_as_an_encoder_and_says_what_is_left_out(tmp_path: Path) -> None:
    whole = classifier()
    state = {name: value for name, value in whole.state.items() if not name.startswith("head.")}
    notes = to_huggingface(with_fields(whole, state=state), tmp_path / "out")
    assert notes == ("fc_norm.weight, fc_norm.bias: not part of VideoMAEModel, left out",)
    back = read_model(tmp_path / "out")
    assert all(torch.equal(value, state[name]) for name, value in back.state.items())
    assert not back.has_head


def test_an_export_is_whole_or_not_at_all_and_replaces_nobodys_folder(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("x")
    with pytest.raises(ValueError, match="mine: is there already and is not an empty folder"):
        to_huggingface(classifier(), mine)
    assert [path.name for path in mine.iterdir()] == ["thesis.txt"]
    with pytest.raises(ValueError, match=r"thesis.txt: is there already"):
        to_huggingface(classifier(), mine / "thesis.txt")
    with pytest.raises(ValueError, match=r"thesis.txt/out: cannot be written \(Not a directory\)"):
        to_huggingface(classifier(), mine / "thesis.txt" / "out")
    (tmp_path / "empty").mkdir()
    to_huggingface(classifier(), tmp_path / "empty")
    assert is_videomae(tmp_path / "empty")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "mine"]
