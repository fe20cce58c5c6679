"""Kill a training run at random, again and again; it must end as if nothing had happened.

python scripts/soak.py                              100 kills of one process and its workers
python scripts/soak.py --ranks 2                    of torchrun, two ranks and their workers
python scripts/soak.py --ranks 2 --parallel fsdp    with sharded checkpoints
python scripts/soak.py --kills 5                    a short look

A tiny run on real video files is started by the command line, killed by SIGTERM or SIGKILL (the parent, a rank or a
data worker) at a random moment, and started again, until all kills are spent and the run is done. Exit code 1 unless
the final weights, the optimiser's state and the log are those of a run that nobody touched, bit for bit; every restart
went on from the newest checkpoint; none was damaged; and no process outlived its run. What is killed, how and after
which step follows from --seed; the moment within the step does not.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from tubelet.data.synthetic.scenes import clip_of
from tubelet.data.synthetic.videos import write_video
from tubelet.disk.layout import MODEL_FILE
from tubelet.recipe import PretrainRecipe, override, to_yaml
from tubelet.recipes.demo import demo_pretrain
from tubelet.rng import generator
from tubelet.train.checkpoint import folder as checkpoint
from tubelet.train.records.log import LOG, read_log

VIDEOS: Final = 16
STEPS_EACH: Final = 12
"""About how many steps the run needs between two kills."""
PATIENCE_SECONDS: Final = 120.0
NAP_SECONDS: Final = 0.05
RUN_SECONDS: Final = 3600.0
EARLY: Final = 0.1
"""Share of the kills that come while a process starts."""


@dataclass
class MetricBuffer:
    """What happened."""

    kills: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    rounds: int = 0
    longest_end_seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


class Launch:
    """A started run: one process, or torchrun with its ranks. `saved` is the newest checkpoint that was seen."""

    def __init__(self, command: Sequence[str], out: Path, said: Path) -> None:
        self.out, self.said, self.saved = out, said, newest(out)
        self.began_after = self.saved
        self._known: dict[int, str] = {}
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        with said.open("w") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def victims(self, kind: str, ranks: int) -> list[int]:
        """Processes that may be killed as this kind: a `parent`, a `rank` or a `worker`."""
        parents = [self.process.pid]
        below = children(parents)
        lowest = below if ranks == 1 else children(below)
        self._known |= {pid: started for pid in [*parents, *below, *lowest] if (started := birth(pid))}
        return {"parent": parents, "rank": parents if ranks == 1 else below, "worker": lowest}[kind]

    def wait_for_steps(self, steps: int) -> None:
        """Until the log is so many steps further, or the run has ended."""
        first = lines_of(self.out)
        while self.is_alive() and lines_of(self.out) < first + steps:
            time.sleep(0.01)

    def outliving(self) -> list[int]:
        """Processes of this launch, those seen, that are still there."""
        return [pid for pid, started in self._known.items() if birth(pid) == started]

    def wait_until_gone(self) -> float:
        """Wait for all of its processes; gives the seconds that took, those of a paused machine not counted."""
        naps = 0
        while (self.is_alive() or self.outliving()) and naps * NAP_SECONDS < PATIENCE_SECONDS:
            time.sleep(NAP_SECONDS)
            naps += 1
        return naps * NAP_SECONDS


def children(parents: Sequence[int]) -> list[int]:
    """Direct children of these processes, without helpers of Python that only clean up."""
    found = []
    for entry in Path("/proc").iterdir():
        fields = stat(int(entry.name)) if entry.name.isdigit() else []
        if fields and int(fields[1]) in parents and fields[0] != "Z" and "tracker" not in command_of(int(entry.name)):
            found.append(int(entry.name))
    return sorted(found)


def stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat after the name: state, parent, ...; empty where the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def birth(pid: int) -> str:
    """When a process began, so that its number given to another is seen; empty where it is gone or only a zombie."""
    fields = stat(pid)
    return fields[19] if fields and fields[0] != "Z" else ""


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


class Soak:
    """A run that is killed until the kills are spent."""

    def __init__(self, folder: Path, *, kills: int, ranks: int, parallel: str, seed: int) -> None:
        self.folder, self.left, self.ranks = folder, kills, ranks
        self.rng: np.random.Generator = generator(seed)
        self.tally = MetricBuffer()
        self.recipe = folder / "soak.yaml"
        steps = max(60, min(kills, 100) * STEPS_EACH)
        self.recipe.write_text(to_yaml(soak_recipe(folder / "videos", steps=steps, parallel=parallel)))

    def command(self, out: Path) -> list[str]:
        program = ["-m", "tubelet", "pretrain", str(self.recipe), "--out", str(out)]
        if self.ranks == 1:
            return [sys.executable, *program]
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(self.ranks)]
        return [sys.executable, *torchrun, *program]

    def run(self) -> MetricBuffer:
        """The undisturbed run, then rounds of the disturbed one until no kill is left."""
        whole = self.folder / "whole"
        subprocess.run(self.command(whole), check=True, capture_output=True)
        while self.left > 0 and not self.tally.faults:
            self.tally.rounds += 1
            out = self.folder / f"killed-{self.tally.rounds}"
            while not (out / "model" / MODEL_FILE).is_file() and not self.tally.faults:
                self.one_launch(out)
            self.tally.faults += [] if self.tally.faults else differences(whole, out)
        return self.tally

    def one_launch(self, out: Path) -> None:
        """Start, kill, and look at what is left."""
        self.tally.starts += 1
        launch = Launch(self.command(out), out, self.folder / f"said-{self.tally.starts:04d}.txt")
        is_dying = False
        while self.left > 0 and launch.is_alive() and not is_dying:
            is_dying = self.one_kill(launch)
        if not is_dying:
            launch.process.wait(RUN_SECONDS)
        seconds = launch.wait_until_gone()
        self.tally.longest_end_seconds = max(self.tally.longest_end_seconds, seconds)
        for pid in launch.outliving():
            self.tally.faults.append(f"{launch.said}: process {pid} outlived it by {seconds:.0f} s: {command_of(pid)}")
            os.kill(pid, signal.SIGKILL)
        self.tally.faults += faults_of(launch)

    def one_kill(self, launch: Launch) -> bool:
        """Wait for the moment, and kill; whether the run must end now (a worker is replaced)."""
        kind = str(self.rng.choice(["parent", "rank", "worker"]))
        number = signal.SIGTERM if self.rng.random() < 0.5 else signal.SIGKILL
        is_early = kind != "worker" and self.rng.random() < EARLY
        steps, delay = int(self.rng.integers(1, STEPS_EACH)), float(self.rng.uniform(0, 0.1))
        if is_early:
            time.sleep(30 * delay)
        else:
            launch.wait_for_steps(steps)
            time.sleep(delay)
        victims = launch.victims(kind, self.ranks)
        if not victims or not launch.is_alive():
            return False
        launch.saved = max(launch.saved, newest(launch.out))
        try:
            os.kill(victims[int(self.rng.integers(len(victims)))], number)
        except ProcessLookupError:
            return False
        self.left -= 1
        self.tally.kills[f"{kind} {signal.Signals(number).name}{' at the start' if is_early else ''}"] += 1
        return kind != "worker"


def faults_of(launch: Launch) -> list[str]:
    """No checkpoint may be lost or damaged, and the launch must have begun at the newest."""
    text, faults = launch.said.read_text(errors="replace"), []
    if "DAMAGED" in text:
        faults.append("found a damaged checkpoint")
    if re.search(r'File ".*tubelet/', text):
        faults.append("ended in a traceback")
    if newest(launch.out) < launch.saved:
        faults.append(f"step {launch.saved} was saved, step {newest(launch.out)} is the newest now")
    began = re.search(r"going on from \S*step-(\d+)", text)
    if began is not None and int(began[1]) != launch.began_after:
        faults.append(f"went on from step {int(began[1])}, but step {launch.began_after} was saved")
    if began is None and launch.began_after and re.search(r"^step \d+/", text, re.MULTILINE):
        faults.append(f"began anew, but step {launch.began_after} was saved")
    return [f"{launch.said}: {fault}" for fault in faults]


def soak_recipe(videos: Path, *, steps: int, parallel: str) -> PretrainRecipe:
    """The demo's pre-training, made tiny: 4 steps an epoch, a checkpoint every 5 steps."""
    small = ("width=48", "depth=2", "heads=2")
    changes = [
        *(f"model.encoder.{change}" for change in small),
        *("model.decoder.width=24", "model.decoder.depth=1", "model.decoder.heads=2"),
        *(f"data.videos={videos}", "data.workers=2", "data.cache=null"),
        *(f"schedule.epochs={steps * 4 // VIDEOS}", "schedule.warmup_epochs=1", "optim.lr=0.01"),
        *("run.batch_size=4", "run.device=cpu", "run.precision=fp32", "run.threads=1", f"run.parallel={parallel}"),
        *("run.save_every=5", "run.log_every=1", "run.keep=2"),
    ]
    return override(demo_pretrain(), changes)


def newest(out: Path) -> int:
    """Step of the newest checkpoint, 0 without one."""
    folder = checkpoint.latest(out)
    return 0 if folder is None else checkpoint.step_of(folder)


def lines_of(out: Path) -> int:
    path = out / LOG
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def differences(one: Path, other: Path) -> list[str]:
    """In what two finished runs differ."""
    faults = [] if read_log(one / LOG) == read_log(other / LOG) else [f"{other}: another log than {one}"]
    mine, yours = (checkpoint.load(checkpoint.saved(run)[-1]) for run in (one, other))
    for part in ("model", "optimizer"):
        left, right = getattr(mine, part), getattr(yours, part)
        if left.keys() != right.keys() or not all(value.equal(right[name]) for name, value in left.items()):
            faults.append(f"{other}: another {part} than {one}")
    models = [(run / "model" / MODEL_FILE).read_bytes() for run in (one, other)]
    return faults if models[0] == models[1] else [*faults, f"{other}: another model than {one}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--parallel", choices=("auto", "ddp", "fsdp"), default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=None, help="kept afterwards; a temporary one by default")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if chosen.folder is None else chosen.folder
        (folder / "videos").mkdir(parents=True)
        for index in range(VIDEOS):
            write_video(clip_of(0, index, frames=20, size=64), folder / "videos" / f"{index:02d}.mp4", fps=10)
        begun = time.monotonic()
        soak = Soak(folder, kills=chosen.kills, ranks=chosen.ranks, parallel=chosen.parallel, seed=chosen.seed)
        tally = soak.run()
    summary = {
        "kills": sum(tally.kills.values()),
        "of": dict(sorted(tally.kills.items())),
        "starts": tally.starts,
        "rounds": tally.rounds,
        "longest_end_seconds": round(tally.longest_end_seconds, 1),
        "minutes": round((time.monotonic() - begun) / 60, 1),
        "faults": tally.faults,
    }
    print(json.dumps(summary, indent=1))
    print("ok: as if nothing had happened" if not tally.faults else f"{len(tally.faults)} faults")
    return 1 if tally.faults else 0


if __name__ == "__main__":
    sys.exit(main())
