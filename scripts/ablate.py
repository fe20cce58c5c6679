"""Compare choices by what they are for: pre-train with each, fine-tune, test; several seeds, one table.

python scripts/ablate.py OUT --pretrain demo-pretrain --finetune demo-finetune \
  --data demo/data/unlabelled.txt --train demo/data/train.csv --test demo/data/test.csv \
  --vary full --vary "cell: decode=running_cell" --vary "random: decode=random" --seeds 0 1 2

Each `--vary` is a name and changes of the pre-training recipe; `--both` and `--tune` are changes for every pre-training
and every fine-tuning; `--scratch` is a fine-tuning recipe that starts from random weights, a row of its own. With
`--pretrain-once` each choice is pre-trained with the first seed alone, and seeds are those of fine-tuning. Runs are
those of the command line in folders of OUT, so that the same command goes on after a stop. OUT/results.csv has a row
for each run: top-1, the last losses, seconds and CPU seconds of pre-training (of this machine as it was: compare only
what ran alike). Ends with the table: mean, standard deviation over seeds.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FIELDS: Final = ("name", "seed", "top1", "pretrain_loss", "finetune_loss", "pretrain_seconds", "pretrain_cpu_seconds")


@dataclass(frozen=True)
class Choice:
    """A name and the changes of the pre-training recipe that it stands for."""

    name: str
    changes: tuple[str, ...]


def main() -> int:
    options = read_options()
    options.out.mkdir(parents=True, exist_ok=True)
    choices = [*([] if options.scratch is None else [Choice("scratch", ())]), *options.vary]
    rows = [run(choice, seed, options) for seed in options.seeds for choice in choices]
    with (options.out / "results.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, FIELDS)
        table.writeheader()
        table.writerows(rows)
    for choice in choices:
        print(line_of(choice.name, [row for row in rows if row["name"] == choice.name]))
    return 0


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    for name in ("--pretrain", "--finetune", "--data", "--train", "--test"):
        parser.add_argument(name, required=True)
    parser.add_argument("--vary", type=choice_of, action="append", required=True, help='"NAME" or "NAME: a=1 b=2"')
    parser.add_argument("--scratch", metavar="RECIPE", help="fine-tuning recipe for random weights")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--pretrain-once", action="store_true", help="seeds are those of fine-tuning alone")
    parser.add_argument("--both", nargs="*", default=[], help="changes of every pre-training")
    parser.add_argument("--tune", nargs="*", default=[], help="changes of every fine-tuning")
    return parser.parse_args()


def choice_of(text: str) -> Choice:
    name, _, changes = text.partition(":")
    return Choice(name.strip(), tuple(changes.split()))


def run(choice: Choice, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """One pre-training, fine-tuning and test; what was finished before is read, not done again."""
    folder: Path = options.out / f"{choice.name}-{seed}"
    done = folder / "row.json"
    if done.is_file():
        found: dict[str, Any] = json.loads(done.read_text())
        return found
    before, begun = cpu_seconds(), time.monotonic()
    pretrained = None if choice.name == "scratch" else folder / "pretrained"
    if pretrained is not None:
        first = options.seeds[0] if options.pretrain_once else seed
        pretrained = options.out / f"{choice.name}-{first}" / "pretrained"
        if not (pretrained / "model" / "model.safetensors").is_file():
            changes = [*options.both, *choice.changes]
            tubelet(
                "pretrain", options.pretrain, *changes, "--data", options.data, "--seed", first, "--out", pretrained
            )
    seconds, used = time.monotonic() - begun, cpu_seconds() - before
    tuned = folder / "finetuned"
    recipe, start = (options.scratch, ()) if pretrained is None else (options.finetune, ("--start", pretrained))
    lists = ("--train", options.train, "--seed", seed)
    tubelet("finetune", recipe, *options.tune, *lists, *start, "--out", tuned)
    tubelet("evaluate", tuned, options.test, "--out", folder / "test")
    row = {
        "name": choice.name,
        "seed": seed,
        "top1": json.loads((folder / "test" / "metrics.json").read_text())["top1"],
        "pretrain_loss": None if pretrained is None else last_loss(pretrained),
        "finetune_loss": last_loss(tuned),
        "pretrain_seconds": round(seconds, 1),
        "pretrain_cpu_seconds": round(used, 1),
    }
    temporary = done.with_suffix(".tmp")
    temporary.write_text(json.dumps(row))
    temporary.replace(done)
    print(json.dumps(row), flush=True)
    return row


def tubelet(*words: object) -> None:
    command = [sys.executable, "-m", "tubelet", *map(str, words)]
    finished = subprocess.run(command, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    if finished.returncode:
        raise SystemExit(f"{' '.join(command[2:])}\n{finished.stderr.decode(errors='replace')[-2000:]}")


def cpu_seconds() -> float:
    """Of all programs that this one has run."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def last_loss(folder: Path) -> float:
    """Mean of the last tenth of the logged losses."""
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records if "loss" in record]
    return statistics.mean(losses[-max(1, len(losses) // 10) :])


def line_of(name: str, rows: Sequence[dict[str, Any]]) -> str:
    top1 = [100 * row["top1"] for row in rows]
    spread = statistics.stdev(top1) if len(top1) > 1 else 0.0
    each = ", ".join(f"{value:.1f}" for value in top1)
    cpu = statistics.mean(row["pretrain_cpu_seconds"] for row in rows)
    return f"{name:24} {statistics.mean(top1):5.1f} +- {spread:4.1f} %  ({each})  {cpu:6.0f} CPU s"


if __name__ == "__main__":
    sys.exit(main())
