"""A short look with the fuzz script: mutated files read or are skipped, and a broken bound is an exit code."""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from video_files import write_video
from zoo import ZOO, needs_zoo

SCRIPT = Path(__file__).parents[2] / "scripts/fuzz.py"


def fuzz(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    for name in ("a.mp4", "b.mkv", "c.ts", "d.avi"):
        write_video(tmp_path / "seeds" / name, 30, b_frames=2)
    return tmp_path / "seeds"


@needs_zoo
def test_forty_mutated_files_of_the_zoo_break_no_bound() -> None:
    done = fuzz(ZOO, "--files", 40, "--workers", 2)
    assert done.returncode == 0, done.stdout + done.stderr
    total = next(line for line in done.stdout.splitlines() if line.split()[:1] == ["all"]).split()
    assert total[1] == "40"
    assert int(total[2]) + int(total[3]) == int(total[4]) + int(total[5]) == 40
    assert min(int(count) for count in total[2:6]) > 0
    assert total[6:9] == ["0", "0", "0"]


def test_a_broken_bound_is_named_kept_and_an_exit_code(seeds: Path, tmp_path: Path) -> None:
    done = fuzz(seeds, "--files", 6, "--workers", 1, "--megabytes", 1, "--keep", tmp_path / "kept")
    assert done.returncode == 1, done.stdout + done.stderr
    kept = sorted(path.name for path in (tmp_path / "kept").iterdir())
    assert len(kept) == 6
    assert all(f"{name} (" in done.stdout for name in kept)


def test_files_follow_from_the_seed(seeds: Path, tmp_path: Path) -> None:
    specification = importlib.util.spec_from_file_location("fuzz", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["fuzz"] = module  # dataclasses look their module up
    specification.loader.exec_module(module)
    contents = []
    for seed, name in ((3, "one"), (3, "two"), (4, "three")):
        folder = tmp_path / name
        folder.mkdir()
        options = argparse.Namespace(files=12, seed=seed, seconds=1.0)
        tasks = list(module.mutated(sorted(seeds.iterdir()), folder, options))
        assert {task.kind for task in tasks} == set(module.MUTATIONS)
        contents.append([task.path.read_bytes() for task in tasks])
    assert contents[0] == contents[1]
    assert all(one != other for one, other in zip(contents[0], contents[2], strict=True))
