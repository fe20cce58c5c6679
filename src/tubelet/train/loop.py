"""The training loop: whatever the method, the steps, the records and the checkpoints are the same."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from tubelet.data.order import steps_per_epoch
from tubelet.data.streams import StreamSampler
from tubelet.data.workers.loader import Loader, worker_deaths
from tubelet.disk.layout import RECIPE_FILE
from tubelet.disk.lock import only_run_in
from tubelet.methods.base import Method
from tubelet.recipe import write_recipe
from tubelet.rng import step_rng
from tubelet.train.checkpoint import folder as checkpoint
from tubelet.train.checkpoint.resume import find, prepare
from tubelet.train.distributed.device import autocast, pick_device, pick_precision, plain_compile_errors, set_threads
from tubelet.train.distributed.process_group import is_main, joined, place, sum_over_ranks
from tubelet.train.distributed.signals import Interrupted, StopRequest, stop_request
from tubelet.train.job import Job
from tubelet.train.journal import Journal, SilentJournal
from tubelet.train.micro_batch import MicroBatch, StepPlan, parts
from tubelet.train.records.metric_buffer import StepRecord
from tubelet.train.records.watch import RunFacts, SilentWatch, Watch
from tubelet.train.replica import replica_of
from tubelet.train.schedule import learning_rates
from tubelet.types import VIDEO

__all__ = ["Job", "fit", "fit_prepared", "parts"]


def fit(job: Job, watch: Watch) -> Path:
    """Train to the end of the schedule, from the newest whole checkpoint in `job.out` if there is one.

    Returns the last checkpoint; `job.method` and `job.ema.average` hold the final weights, each rank some rows of them
    where `run.parallel` is fsdp (`shard.on_first_host` puts them together). Raises `Interrupted` after a
    signal, with the state saved; ValueError for what a user can mend: another recipe's folder, damaged checkpoints, a
    full disk, too many unreadable videos, a loss that is not finite. Under torchrun all ranks call this, and share the
    work as `run.parallel` says; `RankLost` where one of them vanished.
    """
    with joined(job.recipe.run, watch.say):
        prepare(job.out, fresh=False)
        return fit_prepared(job, watch if is_main() else SilentWatch())


def fit_prepared(job: Job, watch: Watch) -> Path:
    """What `fit` does once the processes have joined, the folder is prepared, and rank 0 alone is heard by `watch`."""
    alone = only_run_in(job.out) if is_main() else nullcontext()
    with alone, checkpoint.plain_disk_errors(job.out), worker_deaths(), stop_request() as stop:
        return _Loop(job, watch, stop).run()


class _Loop:
    """One run of `fit`. `step` counts the steps taken, `saved_step` those of the newest checkpoint."""

    def __init__(self, job: Job, watch: Watch, stop: StopRequest) -> None:
        recipe = job.recipe
        self.job, self.watch, self.stop, self.recipe = job, watch, stop, recipe
        self.steps_per_epoch = steps_per_epoch(len(job.dataset), recipe.run.batch_size)
        self.rates = learning_rates(
            recipe.optim,
            recipe.schedule,
            batch_size=recipe.run.batch_size,
            steps_per_epoch=self.steps_per_epoch,
        )
        set_threads(recipe.run)
        self.device = pick_device(recipe.run)
        self.precision = pick_precision(recipe.run, self.device)
        self.replica = replica_of(job, self.device)
        self.step = self.saved_step = self._resume()
        self.sampler = self._sampler()
        self.step_plan = StepPlan(
            self.sampler,
            cast(Method, job.method),
            weights={one.name: one.weight for one in job.streams},
            pieces=recipe.run.accumulate,
            device=self.device,
        )
        self.stops: int | None = None  # the signal to stop after this step, known to all ranks

    def run(self) -> Path:
        """All steps that are left; returns the last checkpoint."""
        if is_main():
            write_recipe(self.recipe, self.job.out / RECIPE_FILE)
        self.journal = self._open_journal()
        try:
            self._evaluate()
            if self.step < len(self.rates):
                self._take_all()
            else:
                self.watch.say(f"{self.job.out}: all {self.step} steps are done; --fresh starts again")
        finally:
            self.journal.close()
        return checkpoint.folder_of(self.job.out, self.step)

    def _open_journal(self) -> Journal | SilentJournal:
        if is_main():
            return Journal(self.job, self.watch, step=self.step, total=len(self.rates))
        return SilentJournal(self.job.out, step=self.step)

    def _take_all(self) -> None:
        self.watch.start(self._facts())
        data = self.recipe.data
        loader = Loader(
            self.job.streams,
            self.sampler,
            workers=data.workers,
            device=self.device,
            seconds_per_file=data.max_seconds_per_file,
        )
        try:
            self.journal.begin()
            while self.step < len(self.rates):
                self._take(loader)
                self._after_step(loader)
        finally:
            loader.close()
            self.watch.finish()

    def _resume(self) -> int:
        """Load the newest whole checkpoint; the step it was made after. Without one begin, at 0."""
        folder = find(self.job.out, self.recipe, self.watch.say)
        if folder is None:
            self.replica.begin()
            return 0
        self.replica.load(folder)
        self.watch.say(f"going on from {folder}")
        return checkpoint.step_of(folder)

    def _facts(self) -> RunFacts:
        return RunFacts(
            name=self.recipe.name,
            out=self.job.out,
            first_step=self.step + 1,
            total_steps=len(self.rates),
            steps_per_epoch=self.steps_per_epoch,
            videos=len(self.job.dataset),
            parameters=sum(value.numel() for value in self.job.method.parameters()),
            device=f"{place().world} x {self.device} ({self.replica.form})" if place().world > 1 else str(self.device),
            precision=str(self.precision).removeprefix("torch."),
            views=self.recipe.data.views,
        )

    def _sampler(self) -> StreamSampler:
        here = place()
        return StreamSampler(
            self.job.streams,
            seed=self.recipe.seed,
            start=self.step,
            stop=len(self.rates),
            rank=here.rank,
            world=here.world,
        )

    def _take(self, loader: Loader) -> None:
        """One optimiser step, or none where no file of a stream could be read."""
        device_batch = loader.take()
        rate, epoch = float(self.rates[self.step]), self.step // self.steps_per_epoch
        agreement = self.step_plan.agree(device_batch.host, self.step, stop=self.stop.signal)
        self.step, self.stops = agreement.step, agreement.stop
        self.journal.note_skipped(agreement.skipped, self.step)
        if not agreement.is_complete:
            files = len(agreement.skipped)
            self.journal.add_skipped(step=self.step, epoch=epoch, learning_rate=rate, files=files)
            return
        loss, metrics = self._backward(self.step_plan.split(device_batch, agreement))
        norm = self.replica.optimizer.clip_gradients(self.recipe.optim.clip_grad)
        self.replica.optimizer.step(rate)
        self.replica.share_state()
        self.replica.update_ema()
        record = StepRecord(self.step, epoch, rate, loss, norm, metrics, agreement.index)
        self.journal.add(record, clips=agreement.clips[VIDEO])
        if self.device.type == "cuda" and self.stop.signal is None:
            loader.fetch_ahead()  # while the GPU works on this step

    def _backward(self, pieces: list[MicroBatch]) -> tuple[Tensor, dict[str, Tensor]]:
        """Gradients of the loss of the whole batch, piece by piece, and its numbers for the log."""
        sums: dict[str, Tensor] = {}
        with step_rng(self.recipe.seed, self.step), plain_compile_errors(self.recipe.run, self.device):
            for number, piece in enumerate(pieces, start=1):
                with piece.draws(self.recipe.seed, self.step), self.replica.no_sync(number == len(pieces)):
                    with autocast(self.device, self.precision):
                        output = self.replica(piece.batch)
                    piece.loss(output.losses, scale=self.replica.scale).backward()
                for name, part in piece.scalars(output).items():
                    sums[name] = sums[name] + part if name in sums else part
        if place().world > 1:
            sums = dict(zip(sums, sum_over_ranks(torch.stack(list(sums.values()))).unbind(), strict=True))
        return sums.pop("loss"), sums

    def _after_step(self, loader: Loader) -> None:
        """Records, evaluation, checkpoint and stop, where they are due."""
        run = self.recipe.run
        saves = self.step == len(self.rates) or self.step % run.save_every == 0
        if saves or self.step % self.steps_per_epoch == 0 or self.step % run.log_every == 0:
            self.journal.read(waited_seconds=loader.waited_seconds)
        if self._stops() is None:
            self._evaluate()
        stops = self._stops()
        if saves or stops is not None:
            self.journal.read(waited_seconds=loader.waited_seconds)  # nothing is saved before its loss was looked at
            self._save()
        if stops is not None:
            raise Interrupted(stops, step=self.step)

    def _stops(self) -> int | None:
        """The signal to stop: the newest for one process, for several what they agreed on before the step."""
        return self.stop.signal if place().world == 1 else self.stops

    def _evaluate(self) -> None:
        """Call `after_epoch` at the end of an epoch; after a resume too, if the stop came before it."""
        epochs, rest = divmod(self.step, self.steps_per_epoch)
        if self.job.after_epoch is not None and rest == 0 and epochs > 0:
            with self.replica.resharded():
                self.journal.evaluate(self.step, epochs - 1, self.job.after_epoch)

    def _save(self) -> None:
        if self.step == self.saved_step:
            return
        self.journal.sync()
        facts = {"recipe": self.recipe.model_dump(mode="json"), "torch": torch.__version__}
        self.replica.save(self.step, facts, keep=self.recipe.run.keep)
        self.saved_step = self.step
