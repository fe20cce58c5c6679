"""Prove that a change of the code changes no number: record the losses of many tiny runs before and after, compare.

python scripts/losses.py record before                          every run, with the code of this tree: about 4 minutes
python scripts/losses.py record after --tree ../other           with the code of another tree
python scripts/losses.py compare before after                   a line for each run; exit code 1 where one differs
python scripts/losses.py record after --only distill            one run, and those that it starts or learns from

Runs (`loss_runs.py`) go through the command line alone, on videos made here (`loss_videos.py`), and nothing of the
package is imported, so its insides may be renamed between two records. A record has three files for each run:
NAME.losses.txt (`step loss`), NAME.numbers.txt (`step name number` for all else in the log: gradient norms, rates,
accuracies, validation; and the lines of tables) and NAME.tensors.txt (SHA-256 of each tensor of the final model, with
its name, type and shape). Floats are written so that they read back as the same float. machine.txt says what they
depend on beside the code: records are equal where that is.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from loss_runs import RUNS, STAGES, Run
from loss_videos import write_material

ROOT: Final = Path(__file__).resolve().parents[1]
MACHINE: Final = "machine.txt"
KINDS: Final = ("losses", "numbers", "tensors")
LIBRARIES: Final = ("torch", "numpy", "av", "safetensors")
TABLES: Final = ("stages.csv", "predictions.csv")
PATIENCE_SECONDS: Final = 120.0
PARALLEL: Final = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")


def main() -> int:
    options = read_options()
    if options.command == "compare":
        return compare(options.before, options.after, options.only)
    begun = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        record(options.out, Path(work), options.tree.resolve(), options.only)
    print(f"{time.monotonic() - begun:.0f} s in all; recorded in {options.out}")
    return 0


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("record", help="do the runs, and write what they gave")
    one.add_argument("out", type=Path)
    one.add_argument("--tree", type=Path, default=ROOT, help="checkout whose src/ is run; this one by default")
    two = commands.add_parser("compare", help="look for the first difference of each run")
    two.add_argument("before", type=Path)
    two.add_argument("after", type=Path)
    for command in (one, two):
        command.add_argument("--only", metavar="NAME", action="append", choices=[run.name for run in RUNS])
    return parser.parse_args()


def record(out: Path, work: Path, tree: Path, only: Sequence[str] | None) -> None:
    """Do the runs in the folder `work`, whose paths are in no recipe, and write their numbers to `out`."""
    check_tree(tree, work)
    write_material(work, STAGES)
    write_lines(out / MACHINE, facts(work))
    for run in wanted(only):
        begun = time.monotonic()
        (stopped if run.stopped else whole)(run, work, tree)
        steps = write_record(run, out, work / "runs" / run.name)
        print(f"{run.name:24} {steps:4} steps  {time.monotonic() - begun:5.1f} s", flush=True)


def wanted(only: Sequence[str] | None) -> tuple[Run, ...]:
    """All runs, or those named and what they need, in their order."""
    names = {run.name for run in RUNS} if only is None else set(only)
    for run in reversed(RUNS):
        names |= set(run.needs) if run.name in names else set()
    return tuple(run for run in RUNS if run.name in names)


def check_tree(tree: Path, work: Path) -> None:
    """SystemExit where Python would run other code than that of the tree."""
    command = [sys.executable, "-c", "import tubelet; print(tubelet.__file__)"]
    found = subprocess.run(command, cwd=work, env=environment(tree), capture_output=True, text=True, check=False)
    if not found.stdout or not Path(found.stdout.strip()).is_relative_to(tree / "src"):
        raise SystemExit(f"{tree}: Python takes tubelet from {found.stdout or found.stderr}, not from its src/")


def environment(tree: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def facts(work: Path) -> list[str]:
    """What numbers depend on beside the code: processor, libraries, videos."""
    digest = hashlib.sha256()
    for path in sorted(path for path in work.rglob("*") if path.suffix in (".mp4", ".png")):
        digest.update(path.read_bytes())
    cpus = Path("/proc/cpuinfo")
    flags = [line for line in cpus.read_text().splitlines() if line.startswith("flags")] if cpus.is_file() else []
    machine = f"{platform.machine()} {hashlib.sha256(''.join(flags[:1]).encode()).hexdigest()[:16]}"
    versions = [f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES]
    return [f"machine {machine}", f"python {platform.python_version()}", *versions, f"videos {digest.hexdigest()}"]


def command_of(run: Run) -> list[str]:
    ranks = [] if run.ranks == 1 else [*PARALLEL, str(run.ranks)]
    return [sys.executable, *ranks, "-m", "tubelet", *run.words, "--out", f"runs/{run.name}"]


def whole(run: Run, work: Path, tree: Path) -> None:
    """The run from its beginning, or from where it was stopped, to its end."""
    command = command_of(run)
    done = subprocess.run(command, cwd=work, env=environment(tree), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{run.name} ended with {done.returncode}: {' '.join(command[1:])}\n{done.stderr[-3000:]}")


def stopped(run: Run, work: Path, tree: Path) -> None:
    """The run, stopped by each signal a few steps after it began, or went on, and gone on with to its end."""
    log = work / "runs" / run.name / "log.jsonl"
    for number in (signal.SIGTERM, signal.SIGKILL):
        before = lines_of(log)
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(command_of(run), cwd=work, env=environment(tree), stdout=quiet, stderr=quiet)
        end = time.monotonic() + PATIENCE_SECONDS
        while process.poll() is None and lines_of(log) < before + 5 and time.monotonic() < end:
            time.sleep(0.005)
        process.send_signal(number)
        code = process.wait(PATIENCE_SECONDS)
        if code not in (-number, 128 + number):
            raise SystemExit(f"{run.name} ended with {code} before it could be stopped; give it more epochs")
    whole(run, work, tree)


def lines_of(log: Path) -> int:
    return log.read_bytes().count(b"\n") if log.is_file() else 0


def write_record(run: Run, out: Path, folder: Path) -> int:
    """The files of a run; returns its steps."""
    losses: list[str] = []
    numbers: list[str] = []
    tensors: list[str] = []
    for part in run.parts:
        name = "" if part == "." else f"{part} "
        for one in records(folder / part / "log.jsonl"):
            step = one.pop("step")
            if "loss" in one:
                losses.append(f"{name}{step} {one.pop('loss')!r}")
            numbers += [f"{name}{step} {key} {value!r}" for key, value in flat(one)]
        tables = [folder / part / table for table in TABLES]
        numbers += [f"{name}{table.name} {line}" for table in tables if table.is_file() for line in lines(table)]
        model = folder / part / "model" / "model.safetensors"
        tensors += [f"{name}{line}" for line in digests(model)] if model.is_file() else []
    if not numbers:
        raise SystemExit(f"{run.name}: neither losses nor tables in {folder}")
    for kind, found in zip(KINDS, (losses, numbers, tensors), strict=True):
        write_lines(out / f"{run.name}.{kind}.txt", found)
    return len(losses)


def records(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(log)] if log.is_file() else []


def flat(record: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names and values, of records within it too, by name."""
    for name, value in sorted(record.items()):
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def digests(path: Path) -> list[str]:
    """`name type shape SHA-256` of the tensors of a safetensors file: the length of a JSON, the JSON, the tensors."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    found = []
    for name, one in sorted(json.loads(content[8:start]).items()):
        if name != "__metadata__":
            first, end = one["data_offsets"]
            shape = "x".join(map(str, one["shape"])) or "scalar"
            found.append(
                f"{name} {one['dtype']} {shape} {hashlib.sha256(content[start + first : start + end]).hexdigest()}"
            )
    return found


def compare(before: Path, after: Path, only: Sequence[str] | None) -> int:
    """Print a line for each run that is in either record; 1 where one differs or is missing, else 0."""
    for old, new in zip(lines(before / MACHINE), lines(after / MACHINE), strict=False):
        if old != new:
            print(f"note: {old} before, {new} after: numbers may differ for that alone")
    known = {path.name.removesuffix(".losses.txt") for out in (before, after) for path in out.glob("*.losses.txt")}
    names = [run.name for run in RUNS if run.name in known] + sorted(known - {run.name for run in RUNS})
    names = names if only is None else [name for name in only]
    found = {name: difference(name, before, after) for name in names}
    for name, what in found.items():
        print(f"{name:24} {what or equal(name, before)}")
    differing = sum(what is not None for what in found.values())
    print(f"{len(found) - differing} of {len(found)} runs are equal")
    return 1 if differing or not found else 0


def difference(name: str, before: Path, after: Path) -> str | None:
    """What differs first: a loss, then another number, then a tensor; None where nothing does."""
    for out in (before, after):
        if not all((out / f"{name}.{kind}.txt").is_file() for kind in KINDS):
            return f"MISSING in {out}"
    for kind in KINDS:
        old, new = (lines(out / f"{name}.{kind}.txt") for out in (before, after))
        for one, other in zip(old, new, strict=False):
            if one != other:
                return f"DIFFERS in {kind}: {one} before, {other} after"
        if len(old) != len(new):
            more, which = (old, "before") if len(old) > len(new) else (new, "after")
            return f"DIFFERS in {kind}: {more[min(len(old), len(new))]} only {which}"
    return None


def equal(name: str, out: Path) -> str:
    steps, numbers, tensors = (len(lines(out / f"{name}.{kind}.txt")) for kind in KINDS)
    return f"equal: {steps} losses, {numbers} other numbers, {tensors} tensors"


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def write_lines(path: Path, found: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in found), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
