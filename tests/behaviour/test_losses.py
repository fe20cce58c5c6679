"""`scripts/losses.py`: a record of a run is equal to itself, and the first number that differs is named."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "losses.py"
NAME = "videomae-random"


def losses(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("record") / "before"
    done = losses("record", out, "--only", NAME)
    assert done.returncode == 0, done.stderr
    return out


def changed(before: Path, after: Path, kind: str, old: str, new: str) -> str:
    """What the script says of a record that differs in one place; it must say so by its exit code, too."""
    shutil.copytree(before, after)
    file = after / f"{NAME}.{kind}.txt"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    done = losses("compare", before, after)
    assert done.returncode == 1
    return done.stdout


def test_a_record_has_each_loss_and_each_tensor_and_is_equal_to_itself(before: Path) -> None:
    lines = (before / f"{NAME}.losses.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "3", "4", "5", "6"]
    assert all(repr(float(line.split()[1])) == line.split()[1] for line in lines)
    assert "encoder.patch_embed.weight F32 24x3x2x8x8 " in (before / f"{NAME}.tensors.txt").read_text()
    done = losses("compare", before, before)
    assert done.returncode == 0
    assert "equal: 6 losses" in done.stdout


def test_the_first_difference_is_named(before: Path, tmp_path: Path) -> None:
    third = (before / f"{NAME}.losses.txt").read_text().splitlines()[2]
    said = changed(before, tmp_path / "loss", "losses", third, f"{third}1")
    assert f"DIFFERS in losses: {third} before, {third}1 after" in said
    said = changed(before, tmp_path / "norm", "numbers", "4 grad_norm ", "4 grad_norm 1")
    assert "DIFFERS in numbers: 4 grad_norm" in said
    said = changed(before, tmp_path / "tensor", "tensors", "encoder.patch_embed.weight F32", "encoder.patch.weight F32")
    assert "DIFFERS in tensors" in said


def test_a_run_that_is_missing_is_a_difference(before: Path, tmp_path: Path) -> None:
    shutil.copytree(before, tmp_path / "after")
    (tmp_path / f"after/{NAME}.losses.txt").unlink()
    done = losses("compare", before, tmp_path / "after")
    assert done.returncode == 1
    assert "MISSING" in done.stdout
