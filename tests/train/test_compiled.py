"""Compiled blocks give the losses of plain ones, on the CPU; GPUs have another compiler behind the same call."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tubelet.recipe import Run
from tubelet.train.distributed.device import compiles

TOY = Path(__file__).parents[1] / "toys" / "toy_run.py"
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on a CPU wants g++")


def losses(out: Path, *changes: str, finetune: bool = True) -> list[float]:
    """Of a run in a process of its own, where annotations are not checked while the program runs."""
    recipe = ["schedule.epochs=1", *changes]
    words = [sys.executable, str(TOY), str(out), json.dumps({"finetune": finetune, "recipe": recipe})]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "loss" in record]


@needs_compiler
def test_compiled_blocks_give_the_same_losses_with_drop_path(tmp_path: Path) -> None:
    plain = losses(tmp_path / "plain", "run.compile=never")
    compiled = losses(tmp_path / "compiled", "run.compile=blocks")
    assert compiled == pytest.approx(plain, rel=1e-5)
    assert len(plain) == 3


@needs_compiler
def test_a_compiled_run_is_repeated_bit_for_bit_and_keeps_the_names_of_weights(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    runs = [tmp_path / name for name in ("one", "two", "plain")]
    how = ("blocks", "blocks", "never")
    one, two, _ = (losses(out, f"run.compile={on}", finetune=False) for out, on in zip(runs, how, strict=True))
    assert one == two
    weights = [load_file(next((out / "checkpoints").iterdir()) / "model.safetensors") for out in runs]
    assert weights[0].keys() == weights[2].keys()
    assert all(value.equal(weights[1][name]) for name, value in weights[0].items())


@needs_compiler
@pytest.mark.slow
def test_compiled_blocks_of_a_multiscale_predictor_give_the_same_losses(tmp_path: Path) -> None:
    encoder = "{kind: mvit, width: 8, depth: 3, stages: [{start: 1}], last_stage_stride: 1}"
    masked = (
        "model=masked_predictor",
        f"model.encoder={encoder}",
        "mask=tube",
        "mask.ratio=0.5",
        "target=frame_pixels",
    )
    how = ("never", "blocks")
    runs = [losses(tmp_path / one, *masked, f"run.compile={one}", finetune=False) for one in how]
    assert runs[1] == pytest.approx(runs[0], rel=1e-5)


def test_auto_never_compiles_on_a_cpu() -> None:
    assert not compiles(Run(), torch.device("cpu"))
    assert compiles(Run(compile="blocks"), torch.device("cpu"))
