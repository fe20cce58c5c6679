"""`tubelet weights`: what it shows, what it writes, and one line for each mistake."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from released import CLIP, ENCODER, HINTS, NAMES, autoencoder, classifier, clips, saved, theirs
from toy_labelled import labelled_folder

from tubelet.cli import main
from tubelet.cli.weights.table import collapsed
from tubelet.models.vit import ViTSpec
from tubelet.spec import replace as changed
from tubelet.types import ClipShape
from tubelet.weights.classifier import load_classifier
from tubelet.weights.read import read_model, write_imported

OPTIONS = argparse.Namespace(num_frames=4, input_size=16)
HEADS = ["--heads", "2", "--decoder-heads", "2"]


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    return saved({"model": theirs(autoencoder()), "args": OPTIONS}, tmp_path, "pretrained.pth")


@pytest.fixture
def finetuned(tmp_path: Path) -> Path:
    return saved({"module": theirs(classifier()), "args": OPTIONS}, tmp_path, "finetuned.pth")


def output(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[str, str]:
    """What `tubelet weights ...` prints, and says on stderr."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["weights", *map(str, arguments)])
    assert not stop.value.code
    done = capsys.readouterr()
    return done.out, done.err


def mistake(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["weights", *map(str, arguments)])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("tubelet: ")
    return line


def test_inspect_shows_the_model(pretrained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown, _ = output(capsys, "inspect", pretrained, *HEADS)
    for words in (
        "VideoMAE pre-training", "4 frames of 16 x 16", "tubelet 2, patch 8", "width 8, depth 2, heads 2, mlp 32",
        "width 6, depth 1, heads 2, mlp 24", "fixed",
    ):  # fmt: skip
        assert words in shown
    assert "decoder.blocks.0.mlp.fc2.bias" not in shown
    shown, _ = output(capsys, "inspect", pretrained, *HEADS, "--tensors")
    assert "decoder.blocks.0.mlp.fc2.bias" in shown
    assert "8 x 3 x 2 x 8 x 8" in shown


def test_inspect_says_the_same_as_json(finetuned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown, _ = output(capsys, "inspect", finetuned, "--heads", "2", "--json", "--tensors")
    facts = json.loads(shown)
    assert facts["encoder"] == {
        "width": 8, "depth": 2, "heads": 2, "mlp": 32, "layer_scale": False, "cosine_attention": False
    }  # fmt: skip
    assert (facts["frames"], facts["size"], facts["classes"], facts["decoder"]) == (4, 16, 3, None)
    assert facts["parameters"] == sum(tensor.numel() for tensor in classifier().state_dict().values())
    assert facts["tensors"]["head.weight"] == [3, 8]


def test_inspect_lists_what_is_not_used_and_what_was_assumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = classifier(changed(ENCODER, width=192, heads=3))
    path = saved({"model": {**theirs(model), "norm.weight": torch.ones(192)}}, tmp_path)
    facts = json.loads(output(capsys, "inspect", path, "--trained-frames", "4", "--trained-size", "16", "--json")[0])
    assert facts["dropped"] == ["norm.weight"]
    assert "heads are not in the file: taken as 3" in facts["notes"][1]
    assert "the number of heads" not in facts["notes"][1]
    shown, _ = output(capsys, "inspect", path, "--trained-frames", "4", "--trained-size", "16")
    assert "norm.weight" in shown


def test_many_names_are_put_together() -> None:
    names = [f"decoder.blocks.{block}.{part}" for block in range(4) for part in "abcd"]
    assert collapsed(names[:12]) == names[:12]
    assert collapsed([*names, "mask_token"]) == ["decoder.blocks.* (16)", "mask_token"]


def test_an_imported_classifier_is_evaluated_and_predicts(
    finetuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "names.txt").write_text("bright\ndark\nnone\n")
    shown, _ = output(
        capsys, "import", finetuned, "-o", tmp_path / "run", "--heads", "2", "--class-names", tmp_path / "names.txt"
    )
    assert f"tensors in {tmp_path / 'run/model'}" in shown
    loaded = load_classifier(tmp_path / "run")
    assert loaded.names == ("bright", "dark", "none")
    assert torch.equal(loaded.classifier(clips()), classifier()(clips()))
    videos = labelled_folder(tmp_path / "videos", each=1)
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", str(tmp_path / "run"), str(videos), "--clips", "1", "--crops", "1"])
    assert not stop.value.code


def test_an_imported_pretraining_reconstructs(
    pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output(capsys, "import", pretrained, "-o", tmp_path / "run", *HEADS)
    video = next(labelled_folder(tmp_path / "videos", each=1).rglob("*.mp4"))
    with pytest.raises(SystemExit) as stop:
        main(
            [
                "reconstruct",
                str(video),
                "mask.ratio=0.5",
                "--from",
                str(tmp_path / "run"),
                "-o",
                str(tmp_path / "s.png"),
            ]
        )
    assert not stop.value.code


def test_another_clip_is_interpolated_and_said(
    pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, said = output(capsys, "import", pretrained, "-o", tmp_path / "run", *HEADS, "--frames", "8", "--size", "24")
    assert "positions of 4 frames of 16 x 16 are interpolated to 8 frames of 24 x 24" in said
    recipe = read_model(tmp_path / "run").recipe
    assert isinstance(recipe.model.encoder, ViTSpec)
    assert (recipe.clip, recipe.model.encoder.positions) == (ClipShape(frames=8, size=24), CLIP)
    shown, _ = output(capsys, "inspect", tmp_path / "run")
    assert "fixed, interpolated from 4 frames of 16 x 16" in shown
    line = mistake(capsys, "import", pretrained, "-o", tmp_path / "other", *HEADS, "--frames", "7")
    assert str(pretrained) in line
    assert "clip.frames 7 is not a multiple of the tubelet 2" in line
    assert not (tmp_path / "other").exists()


def test_a_model_is_replaced_only_where_that_is_wanted(
    pretrained: Path, finetuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output(capsys, "import", pretrained, "-o", tmp_path / "run", *HEADS)
    before = (tmp_path / "run/model/model.safetensors").read_bytes()
    assert "--fresh" in mistake(capsys, "import", finetuned, "-o", tmp_path / "run", "--heads", "2")
    assert (tmp_path / "run/model/model.safetensors").read_bytes() == before
    output(capsys, "import", finetuned, "-o", tmp_path / "run", "--heads", "2", "--fresh")
    assert load_classifier(tmp_path / "run").names == ("0", "1", "2")


@pytest.mark.parametrize("what", ["inspect", "import", "export"])
def test_a_file_that_wants_to_run_code_is_one_line_and_creates_nothing(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'made'}",)

    path = saved({"model": {**theirs(classifier()), "x": Evil()}}, tmp_path)
    out = str(tmp_path / "out")
    more = {"inspect": [], "import": ["-o", out], "export": ["-o", out, "--to", "torch"]}[what]
    line = mistake(capsys, what, path, "--heads", "2", *more)
    assert "refused: to load it would call" in line
    assert "torch.save" in line
    assert not (tmp_path / "made").exists()
    assert not (tmp_path / "out").exists()


def test_mistakes_are_one_line(pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such file or folder" in mistake(capsys, "inspect", tmp_path / "nowhere.pth")
    assert "give --heads" in mistake(capsys, "inspect", pretrained)
    assert "names.txt" in mistake(
        capsys, "import", pretrained, "-o", tmp_path / "x", *HEADS, "--class-names", tmp_path / "names.txt"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("to", "files"),
    [
        ("huggingface", {"config.json", "model.safetensors"}),
        ("onnx", {"classifier.onnx"}),
        ("torch", {"classifier.pt2"}),
    ],
)
def test_a_run_goes_out_to_other_programs(
    to: str, files: set[str], finetuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_imported(replace(read_model(finetuned, HINTS), names=NAMES), tmp_path / "run")
    shown, _ = output(capsys, "export", tmp_path / "run", "-o", tmp_path / "out", "--to", to)
    assert files <= {path.name for path in (tmp_path / "out").iterdir()}
    assert all(name in shown for name in files)
    assert str(tmp_path / "out") in mistake(capsys, "export", tmp_path / "run", "-o", tmp_path / "out", "--to", to)
