"""What every run does, whatever it trains: look at everything, prepare the folder, train, write the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn

from tubelet.data.mixture import Mixture
from tubelet.data.order import rank_rows, steps_per_epoch
from tubelet.data.streams import StreamSet, TrainingSet
from tubelet.disk.write import write_text
from tubelet.recipe import SingleRun
from tubelet.runs.teacher_record import TeacherRecord, check_teacher, write_teacher
from tubelet.train.checkpoint.folder import latest, write_model
from tubelet.train.checkpoint.resume import check_apart, prepare
from tubelet.train.distributed.device import pick_device, pick_precision
from tubelet.train.distributed.process_group import is_main, joined, on_main, place
from tubelet.train.job import Job
from tubelet.train.loop import fit_prepared
from tubelet.train.optim import Ema, ParameterGroup
from tubelet.train.records.throughput import ThroughputScale
from tubelet.train.records.watch import SilentWatch, Watch
from tubelet.train.schedule import learning_rates

RecipeT = TypeVar("RecipeT", bound=SingleRun)


@dataclass(frozen=True)
class Beginning:
    """A run that is about to begin in `out`, or that goes on from the work there. `watch` hears rank 0 alone."""

    out: Path
    watch: Watch
    goes_on: bool

    def check_apart(self, needed: Mapping[str, str | None]) -> None:
        """ValueError where a new run would replace weights that it needs, by the option that names them.

        Where it goes on, its checkpoint follows: what it once started from need not exist any more.
        """
        if not self.goes_on:
            check_apart(self.out, needed)


@dataclass(frozen=True)
class Prepared:
    """A run of which nothing can be refused any more: what the loop is given, and what is written.

    `recipe` is complete: what is counted in the data is in it. `weights` gives the tensors of the finished model, after
    the last step. `texts` are files by name, written when the run begins and, last of all, beside the finished model.
    The rest as in `tubelet.train.job.Job`.
    """

    recipe: SingleRun
    method: nn.Module
    groups: tuple[ParameterGroup, ...]
    dataset: TrainingSet
    weights: Callable[[], Mapping[str, Tensor]]
    mixture: Mixture | None = None
    teachers: tuple[TeacherRecord, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    after_epoch: Callable[[int], Mapping[str, float]] | None = None
    ema: Ema | None = None
    throughput_scale: Callable[[], ThroughputScale] = ThroughputScale
    other_streams: tuple[StreamSet, ...] = ()


def run_single(
    recipe: RecipeT, out: Path, watch: Watch, *, fresh: bool, prepared: Callable[[RecipeT, Beginning], Prepared]
) -> Path:
    """Train what `prepared` makes of the recipe in the run folder `out`; returns the folder of the finished model.

    `prepared` refuses what it can before `fresh` removes anything. Errors as of `tubelet.runs.runner.Train`.
    """
    with joined(recipe.run, watch.say):
        shown = watch if is_main() else SilentWatch()
        beginning = Beginning(out, shown, goes_on=latest(out) is not None and not fresh)
        made = prepared(recipe, beginning)
        if beginning.goes_on:
            check_teacher(out, made.teachers)
        check_steps(made.recipe, len(made.dataset))
        prepare(out, fresh=fresh)
        write_texts(out, made.texts)
        write_teacher(out, made.teachers)
        fit_prepared(_job(made, out), shown)
        return write_finished(out, made.recipe, made.weights(), made.texts)


def _job(made: Prepared, out: Path) -> Job:
    return Job(
        recipe=made.recipe,
        out=out,
        method=made.method,
        groups=made.groups,
        dataset=made.dataset,
        after_epoch=made.after_epoch,
        ema=made.ema,
        mixture=made.mixture,
        throughput_scale=made.throughput_scale,
        other_streams=made.other_streams,
    )


def check_steps(recipe: SingleRun, videos: int) -> None:
    """ValueError for a device that is not here, too few videos for a batch, or a warm-up that does not fit.

    And for a batch that the processes cannot share. `videos` are those of an epoch.
    """
    pick_precision(recipe.run, pick_device(recipe.run))
    batch = recipe.run.batch_size
    rank_rows(batch, rank=place().rank, world=place().world)
    steps = steps_per_epoch(videos, batch)
    learning_rates(recipe.optim, recipe.schedule, batch_size=batch, steps_per_epoch=steps)


def write_finished(out: Path, recipe: SingleRun, weights: Mapping[str, Tensor], texts: Mapping[str, str]) -> Path:
    """Write `model/` of the run folder `out`; returns it. The texts come last: without them it is not finished."""
    folder = write_model(out, recipe, weights)
    write_texts(folder, texts)
    return folder


def write_texts(folder: Path, texts: Mapping[str, str]) -> None:
    """Write text files by their names. All ranks call this; rank 0 writes."""
    for name, text in texts.items():
        on_main(lambda name=name, text=text: write_text(folder / name, text))  # type: ignore[misc]
