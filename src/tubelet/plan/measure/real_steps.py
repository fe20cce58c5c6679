"""A few real steps of a recipe on made-up clips, in a process of their own: seconds of a step, memory at its peak.

The steps are those of `tubelet.train.loop.fit`. On a processor time and memory are measured in two processes: memory
with an allocator that gives every large piece back at once, so that the peak is what tensors take. By default glibc
keeps pieces for later, which is quicker and takes up to a third more.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from tubelet.data.dataset import Sample
from tubelet.masks import Tube, draw_mask
from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.methods.classifier import Finetuning
from tubelet.methods.predictor import MaskedPredictorSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.models.mvit.model import MViTSpec, Stage
from tubelet.models.vit import ViTSpec
from tubelet.plan.count.shapes import UNKNOWN_CLASSES
from tubelet.recipe import FinetuneRecipe, PretrainRecipe, parse_recipe, to_yaml
from tubelet.rng import generator, step_rng
from tubelet.spec import replace
from tubelet.train.building import build_method
from tubelet.train.distributed.device import pick_device
from tubelet.train.job import Job
from tubelet.train.loop import fit
from tubelet.train.optim import Ema, parameter_groups
from tubelet.train.records.watch import RunFacts, StepReport
from tubelet.types import ClipShape
from tubelet.video.lists.manifest import VideoRef

GIVES_BACK: Final = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
MEMORY_STEPS: Final = 2
"""The second has all states of the optimiser."""
_RESULT: Final = "measured.json"

_TINY_VIT: Final = MaskedAutoencoderSpec(
    encoder=ViTSpec(width=64, depth=2, heads=2, patch=8), decoder=DecoderSpec(width=64, depth=2, heads=2)
)
_TINY_MVIT: Final = MViTSpec(width=32, depth=3, stages=(Stage(start=1), Stage(start=2)), kv_stride=(1, 4, 4))

Recipe = PretrainRecipe | FinetuneRecipe


@dataclass(frozen=True)
class Rehearsed:
    """Median `seconds` of a step after the first, without waiting for data; bytes at the peak of a step.

    `loose_peak_bytes` is the peak with the allocator as it comes, which keeps pieces for later. `runtime_bytes` were
    there before, after steps of a tiny model, or stay behind: Python, PyTorch and its kernels. On a GPU they are not
    known, and both peaks are of the tensors that PyTorch has handed out. 0 where a step is lost in what stays behind.
    """

    seconds: float
    peak_bytes: int
    loose_peak_bytes: int
    runtime_bytes: int


@dataclass(frozen=True)
class _Found:
    """In one process: median seconds of a step; bytes resident before the steps, at their peak, when all is gone."""

    seconds: float
    before: int
    peak: int
    after: int


def rehearse(recipe: Recipe, *, steps: int) -> Rehearsed:
    """Take `steps` steps after a first one. ValueError where they fail, with the last line of what was said.

    What stays of them when their tensors are gone are kernels that were compiled for their shapes.
    """
    on_gpu = pick_device(recipe.run).type == "cuda"
    timed = _in_process(recipe, 1 + steps, {})
    if on_gpu:
        return Rehearsed(timed.seconds, timed.peak, timed.peak, 0)
    weighed = _in_process(recipe, MEMORY_STEPS, GIVES_BACK)
    runtime = max(weighed.before, weighed.after)
    return Rehearsed(timed.seconds, max(0, weighed.peak - runtime), max(0, timed.peak - runtime), runtime)


def _in_process(recipe: Recipe, steps: int, settings: dict[str, str]) -> _Found:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "recipe.yaml").write_text(to_yaml(recipe))
        command = [sys.executable, "-m", "tubelet.plan.measure.real_steps", folder, str(steps)]
        done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, check=False)
        result = Path(folder) / _RESULT
        if done.returncode or not result.exists():
            said = done.stderr.strip().splitlines() or ["it was killed, perhaps for want of memory"]
            raise ValueError(f"{recipe.name}: the steps to measure failed ({said[-1]}); --steps 0 leaves them out")
        return _Found(**json.loads(result.read_text()))


class _Enough(Exception):  # noqa: N818  no error
    """The steps are taken; nothing need be saved."""


@dataclass
class _Clock:
    """Watches a run, notes when steps end, and stops it after the last."""

    steps: int
    seconds: list[float] = field(default_factory=list)
    _since: float = 0.0

    def start(self, facts: RunFacts) -> None:  # noqa: ARG002
        self._since = time.perf_counter()

    def step(self, report: StepReport) -> None:
        now = time.perf_counter()
        self.seconds.append((now - self._since) * (1 - report.waiting_ratio))
        self._since = now
        if report.step == self.steps:
            raise _Enough

    def say(self, line: str) -> None:
        """Nobody listens."""

    def finish(self) -> None:
        """Nothing to put away."""


@dataclass(frozen=True)
class _MadeUp:
    """Clips of made-up bytes: the same for every video, for reading is not what is measured."""

    recipe: Recipe
    count: int
    videos: Sequence[VideoRef] = field(init=False)
    _clips: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        clip, views = self.recipe.clip, self.recipe.data.views
        shape = (views, 3, clip.frames, clip.size, clip.size)
        noise = generator(0).integers(0, 256, shape, dtype=np.uint8)
        object.__setattr__(self, "_clips", torch.from_numpy(noise))
        names = (f"{index}.mp4" for index in range(self.count))
        object.__setattr__(self, "videos", tuple(VideoRef(Path(name), None, name) for name in names))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        if isinstance(self.recipe, FinetuneRecipe):
            return Sample(index, self._clips, None, index % (self.recipe.classes or UNKNOWN_CLASSES))
        recipe, grid = self.recipe, self.recipe.clip.grid(self.recipe.model.encoder.cube)
        draws = [generator(recipe.seed, epoch, index, view) for view in range(recipe.data.views)]
        masks = torch.cat([draw_mask(recipe, grid, draw).stacked() for draw in draws])
        return Sample(index, self._clips, masks, None)


def made_up_job(recipe: Recipe, out: Path, steps: int) -> Job:
    """The job of a recipe on as many made-up videos as `steps` steps take."""
    dataset = _MadeUp(recipe, recipe.run.batch_size * steps)
    if isinstance(recipe, PretrainRecipe):
        method = build_method(recipe)
        groups = parameter_groups(method, weight_decay=recipe.optim.weight_decay)
        return Job(recipe, out, method, groups, dataset)
    with step_rng(recipe.seed, 0):
        classifier = recipe.model.build(recipe.clip, recipe.classes or UNKNOWN_CLASSES)
    tuned = Finetuning(classifier, recipe.mixing)
    groups = parameter_groups(
        tuned,
        weight_decay=recipe.optim.weight_decay,
        layer_decay=recipe.optim.layer_decay,
        encoder=classifier.encoder,
    )
    ema = None if recipe.ema is None else Ema(tuned, decay=recipe.ema)
    return Job(recipe, out, tuned, groups, dataset, ema=ema)


def _take(recipe: Recipe, steps: int) -> list[float]:
    """Seconds of each step."""
    clock = _Clock(steps)
    with tempfile.TemporaryDirectory() as out:
        try:
            fit(made_up_job(_for_rehearsal(recipe), Path(out), steps), clock)
        except _Enough:
            return clock.seconds
    raise AssertionError("the run ended by itself")


def _for_rehearsal(recipe: Recipe) -> Any:
    """No warm-up, no workers, no checkpoint, a look at every step."""
    return replace(
        recipe,
        start=None,
        data=replace(recipe.data, workers=0),
        schedule=replace(recipe.schedule, epochs=1, warmup_epochs=0),
        run=replace(recipe.run, log_every=1, save_every=10**9),
    )


def _tiny(recipe: Recipe) -> PretrainRecipe:
    """A step of this loads what every step needs: kernels, buffers of threads, modules imported late."""
    return PretrainRecipe(
        name="warm",
        clip=ClipShape(frames=16, size=64),
        model=MaskedPredictorSpec(encoder=_TINY_MVIT) if isinstance(recipe.model.encoder, MViTSpec) else _TINY_VIT,
        mask=Tube(ratio=0.5),
        run=replace(recipe.run, batch_size=2, accumulate=1),
    )


def resident_bytes(*, peak: bool) -> int:
    """What this process holds in memory, now or at its peak. Without /proc it is always the peak."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(fields["VmHWM" if peak else "VmRSS"].split()[0]) * 1024


def forget_peak() -> None:
    """Linux: the peak is counted from now on."""
    forget = Path("/proc/self/clear_refs")
    if forget.exists():
        forget.write_text("5")


def main() -> None:
    """`python -m tubelet.plan.measure.real_steps FOLDER STEPS`: measure the folder's recipe, leave the result there."""
    folder, steps = Path(sys.argv[1]), int(sys.argv[2])
    recipe = parse_recipe((folder / "recipe.yaml").read_text(), "recipe")
    _take(_tiny(recipe), 2)
    gc.collect()
    before = resident_bytes(peak=False)
    forget_peak()
    seconds = float(np.median(_take(recipe, steps)[1:]))
    peak = resident_bytes(peak=True)
    if pick_device(recipe.run).type == "cuda":
        peak = torch.cuda.max_memory_allocated()
    gc.collect()
    found = _Found(seconds, before, peak, resident_bytes(peak=False))
    (folder / _RESULT).write_text(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
