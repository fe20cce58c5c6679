"""What every benchmark needs: facts of the machine, fair timing, a line of JSON per result."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import torch

RESULTS: Final = Path(__file__).parent / "results"
PACKAGES: Final = ("torch", "transformers", "numpy", "av", "decord", "scikit-image")


def facts(device: torch.device) -> dict[str, Any]:
    """Commit, device, threads and versions: what a figure means nothing without."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := installed(name))},
    }


def commit() -> str:
    """Of the working tree, with a mark where files differ from it; the results that a benchmark adds do not count."""
    folder = Path(__file__).parent
    head = _git(folder, "rev-parse", "--short=12", "HEAD") or "unknown"
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ":/", f":(exclude){RESULTS.name}")
    return f"{head}+changes" if changed else head


def device_name(device: torch.device) -> str:
    """Of the GPU, or of the processor and the cores that this process may use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    flags = " with AMX" if torch.cpu.get_capabilities().get("amx_bf16") else ""
    return f"{names[0] if names else platform.processor()}{flags}, {len(os.sched_getaffinity(0))} cores"


def installed(package: str) -> str | None:
    """Version, None where it is not there."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def interleaved(
    work: Mapping[str, Callable[[], object]], *, repeats: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of each piece of work, `repeats` times, one after the other in turn, after one warm-up of each.

    In turn, because what else the machine does then hits all of them alike.
    """
    for run in work.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats):
        for name, run in work.items():
            _wait(device)
            begin = time.perf_counter()
            run()
            _wait(device)
            seconds[name].append(time.perf_counter() - begin)
    return seconds


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """The middle of each."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def fastest(seconds: Mapping[str, list[float]]) -> str:
    """Name of the one with the smallest median."""
    return min(seconds, key=lambda name: statistics.median(seconds[name]))


def spread(values: list[float]) -> float:
    """How far the quarters lie apart, as a share of the median: what a ratio may be off by."""
    if len(values) < 4:
        return (max(values) - min(values)) / statistics.median(values)
    first, middle, last = statistics.quantiles(values, n=4)
    return (last - first) / middle


def append(name: str, record: Mapping[str, Any]) -> None:
    """Add a line to `results/NAME.jsonl`."""
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{name}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def matmul_peak(device: torch.device, dtype: torch.dtype, *, size: int = 2048) -> float:
    """FLOP/s of a square matrix product: the best of ten."""
    a = torch.randn(size, size, device=device).to(dtype)
    best = min(interleaved({"matmul": lambda: a @ a}, repeats=10, device=device)["matmul"])
    return float(2 * size**3 / best)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout.strip()
