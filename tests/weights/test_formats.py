"""The tables of what models are read from, hold and go out as: every entry is run; a new one is a file and a line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exports import autoencoder as exported_autoencoder
from exports import classifier as exported_classifier
from released import CLIP, ENCODER, HINTS, autoencoder, saved, theirs
from safetensors.torch import save_file
from toy_claims import say
from toy_embed import toy_videos
from toy_labelled import labelled_folder
from toy_run import finetune_recipe

from tubelet.methods.classifier import ClassifierSpec
from tubelet.methods.predictor import MaskedPredictorSpec
from tubelet.models.encoders import ENCODERS
from tubelet.models.mvit.model import MViTSpec
from tubelet.recipe import PretrainRecipe, to_yaml
from tubelet.rng import step_rng
from tubelet.spec import replace
from tubelet.types import ClipShape
from tubelet.weights.checkpoint import PARTS, Checkpoint
from tubelet.weights.export.exports import EXPORTS
from tubelet.weights.export.huggingface import to_huggingface
from tubelet.weights.formats import FORMATS, Format
from tubelet.weights.read import Hints, read_model, write_checkpoint
from tubelet.weights.slowfast.names import CLASSIFIER
from tubelet.weights.tensors.files import OpenedWeights
from tubelet.weights.tensors.rename import to_official

LARGER = ClipShape(frames=4, size=32)


def huggingface_image(folder: Path) -> Path:
    """A ViT as transformers writes it."""
    width, names = 8, ("query", "key", "value")
    block: dict[str, tuple[int, ...]]
    block = {f"attention.attention.{name}.weight": (width, width) for name in names}
    block |= {f"attention.attention.{name}.bias": (width,) for name in names}
    block |= {"attention.output.dense.weight": (width, width), "attention.output.dense.bias": (width,)}
    for norm in ("layernorm_before", "layernorm_after"):
        block |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    block |= {"intermediate.dense.weight": (16, width), "intermediate.dense.bias": (16,)}
    block |= {"output.dense.weight": (width, 16), "output.dense.bias": (width,)}
    shapes: dict[str, tuple[int, ...]] = {f"encoder.layer.0.{name}": shape for name, shape in block.items()}
    shapes |= {"embeddings.cls_token": (1, 1, width), "embeddings.position_embeddings": (1, 5, width)}
    shapes |= {"embeddings.patch_embeddings.projection.weight": (width, 3, 8, 8)}
    shapes |= {"embeddings.patch_embeddings.projection.bias": (width,)}
    shapes |= {"layernorm.weight": (width,), "layernorm.bias": (width,), "pooler.dense.bias": (width,)}
    folder.mkdir()
    save_file({name: torch.rand(shape) for name, shape in shapes.items()}, folder / "model.safetensors")
    sizes = {"hidden_size": width, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
    (folder / "config.json").write_text(json.dumps({"model_type": "vit", **sizes}))
    colours = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    (folder / "preprocessor_config.json").write_text(json.dumps(colours))
    return folder


def huggingface_video(folder: Path) -> Path:
    to_huggingface(exported_classifier(), folder)
    return folder


def slowfast(folder: Path) -> Path:
    with step_rng(1, 0):
        spec = ClassifierSpec(encoder=replace(MViTSpec.tiny(), kv_stride=(1, 8, 8)), pooling="class")
        return saved({"model_state": to_official(spec.build(LARGER, 3).state_dict(), CLASSIFIER)}, folder)


SAMPLES: dict[str, Callable[[Path], Path]] = {
    "Hugging Face VideoMAE": huggingface_video,
    "Hugging Face image model": huggingface_image,
    "tubelet": lambda folder: write_checkpoint(exported_autoencoder(), folder),
    "SlowFast": slowfast,
    "VideoMAE": lambda folder: saved({"model": theirs(autoencoder())}, folder),
}


def test_there_is_a_sample_of_every_format() -> None:
    assert SAMPLES.keys() == FORMATS.keys()


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_known_from_all_others_and_read(name: str, tmp_path: Path) -> None:
    path = SAMPLES[name](tmp_path / "sample")
    matching = [other for other, form in FORMATS.items() if form.matches(OpenedWeights(path))]
    assert matching == [name]
    found = read_model(path, HINTS if name == "VideoMAE" else Hints())
    assert found.build().state_dict().keys()
    clip = found.recipe.clip
    video = torch.zeros(1, 3, clip.frames, clip.size, clip.size, dtype=torch.uint8)
    assert found.build_encoder()(video).isfinite().all()


def predictor() -> Checkpoint:
    recipe = PretrainRecipe(name="x", clip=CLIP, model=MaskedPredictorSpec(encoder=ENCODER))
    with step_rng(1, 0):
        return Checkpoint(Path("x"), "x", recipe.model.build(CLIP, recipe.target).state_dict(), recipe)


def encoder_alone() -> Checkpoint:
    whole = exported_autoencoder()
    return Checkpoint(whole.file, "x", {n: t for n, t in whole.state.items() if n.startswith("encoder.")}, whole.recipe)


HELD: dict[str, Callable[[], Checkpoint]] = {
    "classifier": exported_classifier,
    "masked_autoencoder": exported_autoencoder,
    "masked_predictor": predictor,
    "encoder": encoder_alone,
}


def test_there_is_a_sample_of_every_part() -> None:
    assert HELD.keys() == PARTS.keys()


@pytest.mark.parametrize("part", PARTS)
def test_each_part_is_told_and_built(part: str) -> None:
    found = HELD[part]()
    assert found.part == part
    found.check()
    built = found.build().state_dict()
    assert all(torch.equal(built[name], tensor) for name, tensor in PARTS[part].tensors(found.state).items())
    for other in PARTS.keys() - {part}:
        with pytest.raises(ValueError, match=r"run/model|^x: ") as error:
            found.check_is(other)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ENCODERS)
def test_every_encoder_goes_out_and_comes_back(kind: str, tmp_path: Path) -> None:
    encoder = ENCODERS[kind].tiny()
    recipe = PretrainRecipe(name="x", clip=LARGER, model=MaskedPredictorSpec(encoder=encoder))
    with step_rng(1, 0):
        state = recipe.model.build(LARGER, recipe.target).state_dict()
    folder = write_checkpoint(Checkpoint(Path("x"), "x", state, recipe), tmp_path / "run")
    found = read_model(folder)
    assert found.recipe == recipe
    assert all(torch.equal(found.state[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("to", EXPORTS)
def test_each_export_writes_a_folder(to: str, tmp_path: Path) -> None:
    if to == "onnx":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    write_checkpoint(exported_classifier(), tmp_path / "run")
    say("weights", "export", str(tmp_path / "run"), "-o", str(tmp_path / "out"), "--to", to)
    assert [path for path in (tmp_path / "out").iterdir() if path.stat().st_size]


# A new one: a file with two functions, and a line


def matches_npz(opened: OpenedWeights) -> bool:
    return opened.path.suffix == ".npz"


def read_npz(opened: OpenedWeights) -> Checkpoint:
    with np.load(opened.path) as arrays:
        state = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    recipe = finetune_recipe()
    return Checkpoint(opened.path, "arrays of NumPy", state, recipe)


def write_npz(found: Checkpoint, out: Path) -> tuple[str, ...]:
    out.mkdir()
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in found.state.items()}
    np.savez(out / "weights.npz", **arrays)
    return ("arrays of NumPy",)


@pytest.fixture
def arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of a format that tubelet does not have, which a line adds."""
    monkeypatch.setitem(FORMATS, "npz", Format(matches_npz, read_npz))
    monkeypatch.setitem(EXPORTS, "npz", write_npz)
    recipe = finetune_recipe()
    with step_rng(1, 0):
        state = recipe.model.build(recipe.clip, recipe.classes or 3).state_dict()
    write_checkpoint(Checkpoint(Path("x"), "x", state, recipe), tmp_path / "run")
    say("weights", "export", str(tmp_path / "run"), "-o", str(tmp_path / "out"), "--to", "npz")
    return tmp_path / "out/weights.npz"


def test_a_new_format_is_inspected(arrays: Path) -> None:
    assert "arrays of NumPy" in say("weights", "inspect", str(arrays))


def test_a_new_format_starts_a_finetuning(arrays: Path, tmp_path: Path) -> None:
    data = labelled_folder(tmp_path / "data", each=2)
    (tmp_path / "recipe.yaml").write_text(to_yaml(replace(finetune_recipe(), classes=None, schedule={"epochs": 1})))
    said = say(
        "finetune", str(tmp_path / "recipe.yaml"), "--train", str(data), "--start", str(arrays),
        "--out", str(tmp_path / "fine"), "run.batch_size=2", "schedule.warmup_epochs=0",
    )  # fmt: skip
    assert f"encoder from {arrays}" in said


def test_a_new_format_embeds(arrays: Path, tmp_path: Path) -> None:
    videos = toy_videos(tmp_path / "videos", 2)
    said = say("embed", str(videos), "--from", str(arrays), "--out", str(tmp_path / "e.parquet"), "--device", "cpu")
    assert (tmp_path / "e.parquet").exists()
    assert "e.parquet" in said


def test_an_unknown_export_says_which_there_are(tmp_path: Path) -> None:
    said = say("weights", "export", str(tmp_path), "-o", str(tmp_path / "out"), "--to", "tflite", code=2)
    assert "--to tflite: choose from huggingface, onnx, torch" in said
