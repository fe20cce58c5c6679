"""What every benchmark needs: facts about the machine, fair repeats, a line of JSON per result."""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import torch

import tubelet

REPOSITORY: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = Path(__file__).resolve().parent / "results"


def facts(device: torch.device) -> dict[str, Any]:
    """Commit, day, machine and versions: what a number means nothing without."""
    return {
        "commit": commit(),
        "day": datetime.now(UTC).date().isoformat(),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "tubelet": tubelet.__version__,
    }


def commit() -> str:
    """Short hash of the checkout, with `+changes` where files differ from it; "unknown" without git."""
    try:
        head = _git("rev-parse", "--short", "HEAD")
        return head + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def device_name(device: torch.device) -> str:
    """As the maker calls it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    names = [line.split(":", 1)[1].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else "unknown processor"


def interleaved(
    functions: Mapping[str, Callable[[], object]], *, repeats: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of each call, `repeats` of each function after one to warm up.

    The functions take turns, so a machine that becomes slower or busier does so for all of them.
    """
    for function in functions.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            _wait(device)
            start = time.perf_counter()
            function()
            _wait(device)
            seconds[name].append(time.perf_counter() - start)
    return seconds


def fastest(seconds: Mapping[str, list[float]]) -> str:
    """Name of the one with the smallest median."""
    return min(seconds, key=lambda name: statistics.median(seconds[name]))


def spread(seconds: list[float]) -> float:
    """How far the repeats lie apart: the quartiles' distance over the median. Above 0.1, measure again in quiet."""
    low, middle, high = statistics.quantiles(seconds, n=4)
    return (high - low) / middle


def record(name: str, line: Mapping[str, Any]) -> None:
    """Append a line to `results/NAME.jsonl`."""
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{name}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
