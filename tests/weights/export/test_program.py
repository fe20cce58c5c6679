"""Programs of torch.export compute what the model computes, for any batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from exports import CLIP, ENCODER, autoencoder, classifier, clips

from tubelet.spec import replace
from tubelet.types import ClipShape
from tubelet.weights.export import program as module
from tubelet.weights.export.program import to_program


@pytest.mark.parametrize(("pooling", "clip"), [("mean", CLIP), ("first", ClipShape(frames=8, size=16))], ids=str)
@torch.no_grad()
def test_encoder_and_classifier_are_equal_to_eager_and_nothing_is_printed(
    pooling: str, clip: ClipShape, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    imported = classifier(names=("wave", "point", "clap"), pooling=pooling).resized(clip)
    (note,) = to_program(imported, tmp_path / "out")
    assert capfd.readouterr() == ("", "")
    assert note.startswith(f"made with torch {torch.__version__}")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "classes.txt",
        "classifier.pt2",
        "encoder.pt2",
    ]
    model = imported.build_classifier()
    encode = torch.export.load(tmp_path / "out/encoder.pt2").module()
    classify = torch.export.load(tmp_path / "out/classifier.pt2").module()
    for batch in (1, 2, 5):
        video = clips(clip, batch)
        tokens, pooled = encode(video)
        (logits,) = classify(video)
        torch.testing.assert_close(tokens, model.encoder(video), atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(pooled, model.features(video), atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(logits, model(video), atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_a_pretrained_model_goes_out_as_its_encoder(tmp_path: Path) -> None:
    imported = autoencoder(replace(ENCODER, cosine_attention=True))
    to_program(imported, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["encoder.pt2"]
    video = clips(CLIP, 2)
    tokens, pooled = torch.export.load(tmp_path / "out/encoder.pt2").module()(video)
    torch.testing.assert_close(tokens, imported.build_encoder()(video), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(pooled, tokens.mean(1), atol=1e-6, rtol=1e-6)


def test_a_program_that_computes_something_else_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = module._write

    def write_another(part: Any, clip: ClipShape, file: Path) -> None:
        write(part, clip, file)
        with torch.no_grad():
            part.function.encoder.blocks[0].mlp.fc2.bias[0] += 1e-2  # of one number: a norm takes out a mean

    monkeypatch.setattr(module, "_write", write_another)
    with pytest.raises(ValueError, match=r"out/encoder.pt2: tokens differs from torch's by .*; nothing was written"):
        to_program(autoencoder(), tmp_path / "out")
    assert not list(tmp_path.iterdir())
