"""ONNX files compute what the model computes, for any batch, and nothing is left behind that does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from exports import CLIP, ENCODER, autoencoder, classifier, clips
from torch import Tensor

from tubelet.spec import replace
from tubelet.types import ClipShape
from tubelet.weights.export import onnx as module
from tubelet.weights.export.onnx import to_onnx
from tubelet.weights.export.portable import agree

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")

LONGER = ClipShape(frames=8, size=16)
SHALLOW = replace(ENCODER, depth=1)


def run(file: Path, video: Tensor) -> dict[str, Tensor]:
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    arrays = session.run(names, {"video": video.numpy()})
    return {name: torch.from_numpy(array) for name, array in zip(names, arrays, strict=True)}


@pytest.mark.parametrize("clip", [CLIP, LONGER], ids=["as trained", "longer"])
@torch.inference_mode()
def test_encoder_and_classifier_are_within_1e_4_of_torch_and_nothing_is_printed(
    clip: ClipShape, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    imported = classifier(SHALLOW, names=("wave", "point", "clap")).resized(clip)
    export = to_onnx(imported, tmp_path / "out")
    assert capfd.readouterr() == ("", "")
    assert [file.name for file in export.files] == ["classes.txt", "classifier.onnx", "encoder.onnx"]
    assert export.files[0].read_text() == "wave\npoint\nclap\n"
    assert export.largest_difference <= 1e-4
    model = imported.build_classifier()
    for batch in (1, 2, 5):
        video = clips(clip, batch)
        theirs = run(export.files[1], video) | run(export.files[2], video)
        ours = {"tokens": model.encoder(video), "pooled": model.features(video), "logits": model(video)}
        assert theirs.keys() == ours.keys()
        for name, tensor in ours.items():
            torch.testing.assert_close(theirs[name], tensor, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_a_pretrained_model_goes_out_as_its_encoder_which_takes_bytes_and_any_batch(tmp_path: Path) -> None:
    imported = autoencoder(SHALLOW)
    export = to_onnx(imported, tmp_path / "out")
    assert [file.name for file in export.files] == ["encoder.onnx"]
    video = clips(CLIP, 2)
    theirs, tokens = run(export.files[0], video), imported.build_encoder()(video)
    torch.testing.assert_close(theirs["tokens"], tokens, atol=1e-4, rtol=0)
    torch.testing.assert_close(theirs["pooled"], tokens.mean(1), atol=1e-4, rtol=0)
    graph = onnx.load(export.files[0]).graph
    (given,) = graph.input
    assert given.name == "video"
    assert given.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_param or d.dim_value for d in given.type.tensor_type.shape.dim] == ["batch", 3, 4, 16, 16]
    shapes = {o.name: [d.dim_param or d.dim_value for d in o.type.tensor_type.shape.dim] for o in graph.output}
    assert shapes == {"tokens": ["batch", 8, 8], "pooled": ["batch", 8]}


@torch.inference_mode()
def test_what_the_head_reads_may_be_the_first_token_and_attention_may_be_cosine(tmp_path: Path) -> None:
    encoder = replace(SHALLOW, cosine_attention=True, layer_scale=0.5, learnable_positions=True)
    imported = classifier(encoder, pooling="first")
    export = to_onnx(imported, tmp_path / "out")
    video = clips(CLIP, 2)
    pooled = run(export.files[1], video)["pooled"]
    torch.testing.assert_close(pooled, imported.build_classifier().features(video), atol=1e-4, rtol=0)


def test_a_file_that_computes_something_else_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = module._write

    def write_another(part: Any, clip: ClipShape, file: Path) -> None:
        with torch.no_grad():
            bias = part.function.encoder.blocks[0].mlp.fc2.bias
            bias[0] += 1e-2  # of one number: a norm takes out what all have in common
            write(part, clip, file)
            bias[0] -= 1e-2

    monkeypatch.setattr(module, "_write", write_another)
    with pytest.raises(ValueError, match=r"encoder.onnx, run with onnxruntime: tokens differs from torch's by .*e-0"):
        to_onnx(autoencoder(SHALLOW), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_agreement_is_absolute_for_small_values_and_relative_to_the_largest_for_large_ones() -> None:
    """Without a final norm tokens may be in the hundreds, where float32 itself is coarser than 1e-4."""

    def compared(theirs: list[float], ours: list[float]) -> float:
        return agree({"x": torch.tensor(theirs)}, {"x": torch.tensor(ours)}, tolerance=1e-4, what="file")

    assert compared([0.50009, 0.0], [0.5, 0.0]) == pytest.approx(9e-5, rel=1e-2)
    assert compared([1000.0, 0.09], [1000.0, 0.0]) == pytest.approx(0.09)
    for theirs, ours in [([0.5002], [0.5]), ([1000.2], [1000.0]), ([float("nan")], [0.5])]:
        with pytest.raises(ValueError, match=r"file: x differs from torch's by .*; nothing was written"):
            compared(theirs, ours)


def test_a_missing_package_is_named_with_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACKAGES", ("onnx", "no_such_runtime"))
    with pytest.raises(ValueError, match=r"^ONNX needs no_such_runtime: pip install 'tubelet\[onnx\]'$"):
        to_onnx(classifier(), tmp_path / "out")
    assert not list(tmp_path.iterdir())
