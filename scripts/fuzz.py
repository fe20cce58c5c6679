"""Mutated video files through `check` and through the loader: no crash, no hang, bounded memory.

python scripts/fuzz.py ZOO                 2,000 files made from those in the folder ZOO (else $TUBELET_DATA/zoo)
python scripts/fuzz.py ZOO --files 40      a short look

Each file is read in a process of its own crew, first whole (`tubelet check`), then as two training clips with crops
(what a data worker does). Either may say that it cannot be read; nothing else may happen. Exit code 1 where a process
died, a file took longer than --seconds, took more than --megabytes, or raised anything but the project's own error.
Mutations follow from --seed alone. --keep FOLDER keeps the files that broke a bound.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from tubelet.data.dataset import ClipDataset, ClipPlan, Sample
from tubelet.rng import generator
from tubelet.types import ClipShape
from tubelet.video.augment.augment import Augment, RandomResizedCrop
from tubelet.video.lists.manifest import VideoRef
from tubelet.video.read.decoders import Reading
from tubelet.video.read.limits import MEMORY_BYTES, Limits, last_resort
from tubelet.video.sample import Strided
from tubelet.video.work.scan import examine
from tubelet.video.work.team import Beat, Lost, each

LARGEST_SEED_BYTES: Final = 1_000_000
HEADER_BYTES: Final = 4096
EXTREMES: Final = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
CLIP: Final = ClipShape(frames=16, size=112)


@dataclass(frozen=True)
class Task:
    """A mutated file, and how long reading it may take."""

    path: Path
    kind: str
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """How it went: what both readers said, how long each took at most, and the memory of the process at its height."""

    checked: str
    loaded: str
    seconds: float
    megabytes: float
    escaped: str = ""


def bit_flips(data: bytearray, other: bytes, rng: np.random.Generator) -> bytes:
    """Some bits anywhere, or near the beginning."""
    reach = len(data) if rng.random() < 0.7 else min(HEADER_BYTES, len(data))
    for place in rng.integers(reach, size=int(2 ** rng.uniform(0, 9))):
        data[place] ^= 1 << int(rng.integers(8))
    return bytes(data)


def truncation(data: bytearray, other: bytes, rng: np.random.Generator) -> bytes:
    """The end, the beginning, or a piece in the middle is gone."""
    first, last = sorted(int(place) for place in rng.integers(len(data), size=2))
    return bytes([data[:first], data[last:], data[:first] + data[last:]][int(rng.integers(3))])


def swapped_header(data: bytearray, other: bytes, rng: np.random.Generator) -> bytes:
    """The beginning of another file, in place of its own or before it."""
    size = int(2 ** rng.uniform(3, 12))
    return other[:size] + bytes(data[size if rng.random() < 0.7 else 0 :])


def splice(data: bytearray, other: bytes, rng: np.random.Generator) -> bytes:
    """One file up to somewhere, then another one from somewhere; or a piece of the other in the middle."""
    first, last = sorted(int(place) for place in rng.integers(len(data), size=2))
    start, end = sorted(int(place) for place in rng.integers(len(other), size=2))
    return bytes(data[:first]) + (other[start:] if rng.random() < 0.5 else other[start:end] + bytes(data[last:]))


def hole(data: bytearray, other: bytes, rng: np.random.Generator) -> bytes:
    """A run of zeros, ones or noise."""
    first, size = int(rng.integers(len(data))), int(2 ** rng.uniform(3, 16))
    run = len(data[first : first + size])
    fill = [bytes(run), b"\xff" * run, rng.integers(256, size=run, dtype=np.uint8).tobytes()]
    data[first : first + run] = fill[int(rng.integers(3))]
    return bytes(data)


def absurd_numbers(data: bytearray, other: bytes, rng: np.random.Generator) -> bytes:
    """Sizes, counts and times near the beginning or the end become extreme."""
    ends = [0, max(len(data) - HEADER_BYTES, 0)]
    for _ in range(int(2 ** rng.uniform(0, 5))):
        place = min(ends[int(rng.integers(2))] + int(rng.integers(HEADER_BYTES)), max(len(data) - 4, 0))
        data[place : place + 4] = EXTREMES[int(rng.integers(len(EXTREMES)))].to_bytes(4, "big")
    return bytes(data)


Mutation = Callable[[bytearray, bytes, np.random.Generator], bytes]
MUTATIONS: Final[dict[str, Mutation]] = {
    "bit flips": bit_flips,
    "truncation": truncation,
    "swapped header": swapped_header,
    "splice": splice,
    "hole": hole,
    "absurd numbers": absurd_numbers,
}


@dataclass(frozen=True)
class BothReaders:
    """The work of a process: one file through both readers."""

    def __call__(self, task: Task, beat: Beat) -> Outcome:
        reset_peak()
        took: list[float] = []
        said: list[str] = []
        escaped = ""
        for read in (check, load):
            started = time.monotonic()
            try:
                with last_resort(seconds=None, memory_bytes=MEMORY_BYTES):
                    said.append(read(task))
            except Exception as error:  # noqa: BLE001  whatever escapes is what is looked for
                said.append("escaped")
                escaped = f"{read.__name__}: {type(error).__name__}: {error}"
            took.append(time.monotonic() - started)
            beat(len(took))
        return Outcome(*said, seconds=max(took), megabytes=peak_megabytes(), escaped=escaped)


def check(task: Task) -> str:
    """As `tubelet check` does."""
    return "readable" if examine(task.path).is_readable else "broken"


def load(task: Task) -> str:
    """As a data worker does."""
    plan = ClipPlan(
        clip=CLIP,
        sampler=Strided(stride=4),
        augment=Augment(crop=RandomResizedCrop(), flip=0.5),
        seed=0,
        views=2,
        reading=Reading(limits=Limits(seconds=task.seconds)),
    )
    item = ClipDataset([VideoRef(task.path, None, task.path.name)], plan)[(0, 0)]
    return "read" if isinstance(item, Sample) else "skipped"


def reset_peak() -> None:
    """Linux counts the peak anew from here; elsewhere it is that of the process so far."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_megabytes() -> float:
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return int(lines["VmHWM"].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def mutated(seeds: list[Path], folder: Path, options: argparse.Namespace) -> Iterator[Task]:
    """Writes the files one after the other."""
    names = list(MUTATIONS)
    for number in range(options.files):
        rng = generator(options.seed, number)
        kind = names[number % len(names)]
        one, other = (seeds[int(place)] for place in rng.integers(len(seeds), size=2))
        data = MUTATIONS[kind](bytearray(one.read_bytes()), other.read_bytes(), rng)
        path = folder / f"{number:05d}-{one.stem}{one.suffix}"
        path.write_bytes(data)
        yield Task(path, kind, options.seconds)


@dataclass
class Summary:
    """What came of one kind of mutation: how often each word was said, and the extremes."""

    said: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    megabytes: float = 0.0

    def note(self, outcome: Outcome | Lost, options: argparse.Namespace) -> str:
        """Count it; the bound that it broke, in words, or nothing."""
        self.said["files"] += 1
        if isinstance(outcome, Lost):
            self.said["killed" if "kills" in outcome.reason else "hung"] += 1
            return outcome.reason
        self.said.update([outcome.checked, outcome.loaded])
        self.seconds = max(self.seconds, outcome.seconds)
        self.megabytes = max(self.megabytes, outcome.megabytes)
        if outcome.escaped:
            return outcome.escaped
        if outcome.seconds > options.seconds:
            return f"took {outcome.seconds:.1f} s"
        return f"took {outcome.megabytes:.0f} MB" if outcome.megabytes > options.megabytes else ""


COLUMNS: Final = ("files", "readable", "broken", "read", "skipped", "escaped", "killed", "hung")


def show(summaries: dict[str, Summary]) -> None:
    """The table: `check` says readable or broken, the loader read or skipped."""
    rows = [("mutation", *COLUMNS, "slowest s", "peak MB")]
    total = Summary()
    for kind, one in [*summaries.items(), ("all", total)]:
        total.said.update(one.said if one is not total else {})
        total.seconds, total.megabytes = max(total.seconds, one.seconds), max(total.megabytes, one.megabytes)
        counts = (str(one.said[column]) for column in COLUMNS)
        rows.append((kind, *counts, f"{one.seconds:.2f}", f"{one.megabytes:.0f}"))
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(os.environ.get("TUBELET_DATA", ".")) / "zoo")
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=20.0, help="a file may take so long in each reader")
    parser.add_argument("--megabytes", type=float, default=2048.0, help="a process may be so large at its height")
    parser.add_argument("--keep", type=Path, help="folder for files that broke a bound")
    return parser.parse_args()


def main() -> int:
    options = read_options()
    seeds = sorted(path for path in options.folder.rglob("*") if path.is_file() and path.suffix not in (".csv", ".md"))
    seeds = [path for path in seeds if 0 < path.stat().st_size <= LARGEST_SEED_BYTES]
    if not seeds:
        print(f"{options.folder}: no video to start from", file=sys.stderr)
        return 2
    began = time.monotonic()
    summaries = {kind: Summary() for kind in MUTATIONS}
    faults: list[str] = []
    patience = 1.5 * options.seconds + 5  # beyond the limit that the reader itself keeps
    with tempfile.TemporaryDirectory() as temporary:
        tasks = list(mutated(seeds, Path(temporary), options))
        for place, said in each(tasks, BothReaders(), workers=options.workers, limit_seconds=patience):
            if isinstance(said, (Outcome, Lost)):
                task = tasks[place]
                fault = summaries[task.kind].note(said, options)
                if fault:
                    faults.append(f"{task.path.name} ({task.kind}): {fault}")
                if fault and options.keep is not None:
                    options.keep.mkdir(parents=True, exist_ok=True)
                    shutil.copy(task.path, options.keep)
                task.path.unlink()
    show(summaries)
    print(f"{options.files} files made from {len(seeds)}, seed {options.seed}, {time.monotonic() - began:.0f} s")
    print("\n".join(faults) if faults else "no bound was broken")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
