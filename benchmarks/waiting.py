"""Share of a pre-training run spent waiting for data, where a step takes longer than reading its clips.

python benchmarks/waiting.py           20 steps of 4 clips, VideoMAE-S at 16x224x224, appended to results/loader.jsonl
python benchmarks/waiting.py --quick   6 steps, nothing appended

One data worker reads files that `tubelet prepare` made of the videos of benchmarks/videos.py; the model has the other
cores. The first report is left out: in it the worker starts. Ends with `waiting N.N %`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path
from typing import Final

import torch

from common import append, facts
from loader import SOURCES, make
from tubelet.recipe import PretrainRecipe, override
from tubelet.recipes import RECIPES
from tubelet.runs.pretrain import pretrain
from tubelet.train.records.watch import SilentWatch, StepReport

RECIPE: Final = "videomae-s-k400-1600-pretrain"
CLIPS: Final = 4


class Notes(SilentWatch):
    """Keeps the reports."""

    def __init__(self) -> None:
        self.reports: list[StepReport] = []

    def step(self, report: StepReport) -> None:
        self.reports.append(report)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--folder", type=Path, help="where the videos are kept from one run to the next")
    options = parser.parse_args()
    steps = 6 if options.quick else 20
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "videos"
        folder.mkdir(parents=True, exist_ok=True)
        _, prepared = make(SOURCES[0], folder)
        listed = Path(temporary) / "prepared.txt"
        listed.write_text("".join(f"{video.path.resolve()}\n" for video in prepared))
        notes = Notes()
        pretrain(recipe_for(listed, steps), Path(temporary) / "run", notes)
    ratios = [report.waiting_ratio for report in notes.reports[1:]]
    speed = statistics.median(report.clips_per_second for report in notes.reports[1:])
    if not options.quick:
        record = {"recipe": RECIPE, "steps": steps, "clips_per_step": CLIPS, "workers": 1, "clips_per_second": speed}
        ratio = {"waiting_ratio": statistics.mean(ratios), "largest_waiting_ratio": max(ratios)}
        append("loader", {**facts(torch.device("cpu")), "path": "waiting", **record, **ratio})
    print(f"{speed:.2f} clips/s, at most {100 * max(ratios):.1f} % waiting in a step")
    print(f"waiting {100 * statistics.mean(ratios):.1f} %")


def recipe_for(listed: Path, steps: int) -> PretrainRecipe:
    """The recipe, cut short: each step takes all the videos."""
    recipe = RECIPES[RECIPE]()
    assert isinstance(recipe, PretrainRecipe)
    changes = [f"run.batch_size={CLIPS}", f"schedule.epochs={steps}", "schedule.warmup_epochs=1", "run.log_every=1"]
    here = ["data.workers=1", f"run.threads={max((os.cpu_count() or 2) - 1, 1)}", "run.device=cpu"]
    return override(recipe, [*changes, *here, f"data.videos={listed}"])


if __name__ == "__main__":
    main()
