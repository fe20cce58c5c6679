"""The pages on adding a mask and a target, followed to the letter in a copy of the project: the tests there pass."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STEP = re.compile(r"^\*\*\d\. `([^`]+)`\*\*.*?(?=^\*\*\d\. |^That is all|^`target=|\Z)", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```(python|diff)\n(.*?)^```", re.MULTILINE | re.DOTALL)
RUN = {
    "add-a-mask.md": (
        "future",
        ("tests/masks/test_rules.py", "tests/masks/test_every_rule.py", "tests/test_unions.py"),
    ),
    "add-a-target.md": (
        "frame_change or still_video",
        ("tests/targets/test_pixel_targets.py", "tests/targets/test_every_target.py", "tests/test_unions.py"),
    ),
}


def apply(text: str, diff: str) -> str:
    """The text after a diff without line numbers; each of its parts must occur once."""
    for part in re.split(r"^@@.*\n", diff, flags=re.MULTILINE):
        lines = part.splitlines()
        before = "".join(f"{line[1:]}\n" for line in lines if line[:1] in (" ", "-"))
        after = "".join(f"{line[1:]}\n" for line in lines if line[:1] in (" ", "+"))
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    return text


def follow(page: Path, copy: Path) -> None:
    steps = list(STEP.finditer(page.read_text()))
    assert len(steps) == 4
    for step in steps:
        file = copy / step[1]
        for language, text in BLOCK.findall(step[0]):
            if language == "diff":
                file.write_text(apply(file.read_text(), text))
            else:
                file.write_text(f"{file.read_text()}\n\n{text}" if file.exists() else text)


def run(copy: Path, *command: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(copy / "src")}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_a_part_is_added_as_its_page_says(page: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for folder in ("src", "tests", "docs"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__", "golden", "*.mp4"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    follow(ROOT / "docs" / page, copy)
    which, files = RUN[page]
    run(copy, "pytest", "-q", "-p", "no:cacheprovider", "-k", which, *files)
    run(copy, "pytest", "-q", "-p", "no:cacheprovider", "-k", "masks or targets or room", "tests/test_imports.py")
    run(copy, "ruff", "check", "src/tubelet/masks", "src/tubelet/targets", "tests/masks", "tests/targets")
