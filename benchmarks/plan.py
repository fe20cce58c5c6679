"""What `tubelet plan` says about this machine against real steps: seconds of a step, memory at its peak.

python benchmarks/plan.py           ten recipes, 3 times each, medians appended to results/plan.jsonl
python benchmarks/plan.py --quick   four recipes, once, nothing appended
Wants a quiet machine: estimate and steps are measured one after the other. Ends with the worst ratios of estimate and
measurement, as `ratio time N.NN memory N.NN`.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any, Final

import torch

from common import append, facts
from tubelet.plan.plan import Plan, Question, make_plan
from tubelet.recipe import override
from tubelet.recipes import RECIPES

ALONE: Final = ("data.views=1", "run.accumulate=1")
MULTISCALE: Final = ("model.encoder=mvit", *ALONE)
PREDICTOR: Final = (
    *(
        "model=masked_predictor",
        "model.encoder.kind=mvit",
        "model.encoder.widen_in=mlp",
        "target=hog",
        "mask.ratio=0.4",
    ),
    *ALONE,
)
TINY: Final = ("clip.frames=8", "clip.size=64", "model.encoder.width=48", "run.batch_size=4")
FULL: Final = ("run.batch_size=1",)

QUICK: Final = (
    ("videomae-ti-cpu-pretrain", ()),
    ("videomae-b-k400-800-pretrain", ("run.batch_size=4", "run.accumulate=1", "run.precision=bf16")),
    ("videomae-s-small-finetune", ("run.batch_size=8",)),
    ("videomae-b-k400-800-pretrain", (*PREDICTOR, *TINY)),
)
ALL: Final = (
    *QUICK,
    ("videomae-s-small-pretrain", ("run.batch_size=16",)),
    ("videomae-b-k400-800-pretrain", ("run.batch_size=2", "run.accumulate=1", "run.precision=fp32")),
    ("videomae-ti-cpu-finetune", ("run.batch_size=32",)),
    ("videomae-b-k400-1600-finetune", (*MULTISCALE, *TINY)),
    ("videomae-b-k400-1600-finetune", (*MULTISCALE, *FULL)),
    ("videomae-b-k400-800-pretrain", (*PREDICTOR, "model.encoder.last_stage_stride=1", *FULL)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, help="CPU threads; all cores unless given")
    options = parser.parse_args()
    times, memories = [], []
    for name, changes in QUICK if options.quick else ALL:
        shipped: Any = RECIPES[name]()
        recipe: Any = override(shipped, list(changes))
        if options.threads:
            recipe = override(recipe, [f"run.threads={options.threads}"])
        plans = [make_plan(recipe, Question(steps=3)) for _ in range(1 if options.quick else 3)]
        record = compare(plans)
        times.append(record["time_ratio"])
        memories.append(record["memory_ratio"])
        print(
            f"{name} {' '.join(changes)}\n"
            f"  step    estimate {record['estimated_seconds']:7.3f} s   measured {record['seconds']:7.3f} s   "
            f"{record['time_ratio'] - 1:+.0%}\n"
            f"  memory  estimate {record['estimated_bytes'] / 1e9:7.3f} GB  measured {record['bytes'] / 1e9:7.3f} GB  "
            f"{record['memory_ratio'] - 1:+.0%}",
            flush=True,
        )
        if not options.quick:
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            append(
                "plan",
                {**facts(device), "what": "plan against real steps", "recipe": name, "changes": changes, **record},
            )
    print(f"ratio time {worst(times):.2f} memory {worst(memories):.2f}")


def compare(plans: list[Plan]) -> dict[str, float]:
    """Medians over plans of the same recipe."""
    measured = [plan.measured for plan in plans if plan.measured is not None]
    estimated_seconds = statistics.median(plan.speed.step_seconds for plan in plans)
    estimated_bytes = statistics.median(plan.placements[0].memory.peak for plan in plans)
    seconds = statistics.median(one.seconds for one in measured)
    peak = statistics.median(one.peak_bytes for one in measured)
    return {
        "estimated_seconds": estimated_seconds,
        "seconds": seconds,
        "time_ratio": estimated_seconds / seconds,
        "estimated_bytes": estimated_bytes,
        "bytes": peak,
        "memory_ratio": estimated_bytes / peak,
    }


def worst(ratios: list[float]) -> float:
    """The one farthest from 1."""
    return max(ratios, key=lambda ratio: max(ratio, 1 / ratio))


if __name__ == "__main__":
    main()
