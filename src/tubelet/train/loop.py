"""The training loop: whatever the method, the steps, the records and the checkpoints are the same."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from tubelet.data.loader import Fed, Feed, worker_deaths
from tubelet.data.order import StepSampler, steps_per_epoch
from tubelet.recipe import write_recipe
from tubelet.rng import step_rng
from tubelet.train import checkpoint
from tubelet.train.device import autocast, pick_device, pick_precision, set_threads
from tubelet.train.files import only_run_in
from tubelet.train.job import Job
from tubelet.train.journal import Journal, video_index
from tubelet.train.optim import Optimizer
from tubelet.train.resume import RECIPE, find, prepare
from tubelet.train.schedule import learning_rates
from tubelet.train.signals import Interrupted, StopRequest, stop_request
from tubelet.train.tally import Taken
from tubelet.train.watch import RunFacts, Watch
from tubelet.types import Batch, Output

__all__ = ["Job", "fit", "parts"]


def fit(job: Job, watch: Watch) -> Path:
    """Train to the end of the schedule, from the newest checkpoint in `job.out` if there is one.

    Returns the last checkpoint; `job.method` and `job.ema.average` hold the final weights. Raises `Interrupted` after a
    signal, with the state saved; ValueError for what a user can mend: another recipe's folder, a damaged checkpoint, a
    full disk, too many unreadable videos, a loss that is not finite.
    """
    prepare(job.out, fresh=False)
    with only_run_in(job.out), checkpoint.plain_disk_errors(job.out), worker_deaths(), stop_request() as stop:
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
        self.method = job.method.to(self.device)
        self.count = cast(Callable[[Batch], float], job.method.count)
        self.optimizer = Optimizer(job.groups, recipe.optim)
        if job.ema is not None:
            job.ema.average.to(self.device)
        self.step = self.saved_step = self._resume()

    def run(self) -> Path:
        """All steps that are left; returns the last checkpoint."""
        write_recipe(self.recipe, self.job.out / RECIPE)
        self.journal = Journal(self.job, self.watch, step=self.step, total=len(self.rates))
        try:
            self._evaluate()
            if self.step < len(self.rates):
                self._take_all()
            else:
                self.watch.say(f"{self.job.out}: all {self.step} steps are done; --fresh starts again")
        finally:
            self.journal.close()
        return checkpoint.folder_of(self.job.out, self.step)

    def _take_all(self) -> None:
        self.watch.start(self._facts())
        feed = self._feed()
        try:
            self.journal.begin()
            while self.step < len(self.rates):
                self._take(feed)
                self._after_step(feed)
        finally:
            feed.close()
            self.watch.finish()

    def _resume(self) -> int:
        """Load the newest checkpoint; the step it was made after, 0 without one."""
        found = find(self.job.out, self.recipe)
        if found is None:
            return 0
        folder = checkpoint.folder_of(self.job.out, found.step)
        checkpoint.fill(self.method, found.model, where=folder / checkpoint.MODEL)
        if self.job.ema is not None:
            checkpoint.fill(self.job.ema.average, found.average or {}, where=folder / checkpoint.AVERAGE)
        self.optimizer.load_state(found.optimizer)
        self.watch.say(f"going on from {folder}")
        return found.step

    def _facts(self) -> RunFacts:
        return RunFacts(
            name=self.recipe.name,
            out=self.job.out,
            first_step=self.step + 1,
            total_steps=len(self.rates),
            steps_per_epoch=self.steps_per_epoch,
            videos=len(self.job.dataset),
            parameters=sum(value.numel() for value in self.method.parameters()),
            device=str(self.device),
            precision=str(self.precision).removeprefix("torch."),
        )

    def _feed(self) -> Feed:
        sampler = StepSampler(
            len(self.job.dataset),
            batch_size=self.recipe.run.batch_size,
            seed=self.recipe.seed,
            start=self.step,
            stop=len(self.rates),
        )
        return Feed(self.job.dataset, sampler, workers=self.recipe.data.workers, device=self.device)

    def _take(self, feed: Feed) -> None:
        """One optimiser step, or none where no file of the batch could be read."""
        fed = feed.take()
        rate, epoch = float(self.rates[self.step]), self.step // self.steps_per_epoch
        self.step += 1
        self.journal.note_skipped(fed.host, self.step)
        if fed.host.batch is None:
            files = len(fed.host.skipped)
            self.journal.add_skipped(step=self.step, epoch=epoch, learning_rate=rate, files=files)
            return
        loss, metrics = self._backward(fed)
        norm = self.optimizer.clip_gradients(self.recipe.optim.clip_grad)
        self.optimizer.step(rate)
        if self.job.ema is not None:
            self.job.ema.update(self.method)
        taken = Taken(self.step, epoch, rate, loss, norm, metrics, video_index(fed.host))
        self.journal.add(taken, clips=fed.host.batch.size)
        if self.device.type == "cuda" and self.stop.signal is None:
            feed.fetch_ahead()  # while the GPU works on this step

    def _backward(self, fed: Fed) -> tuple[Tensor, dict[str, Tensor]]:
        """Gradients of the mean over the whole batch, piece by piece: each piece weighs as much as it counts."""
        assert fed.host.batch is not None
        assert fed.batch is not None
        pieces = self.recipe.run.accumulate
        counts = [self.count(part) for part in parts(fed.host.batch, pieces)]
        if sum(counts) <= 0:
            raise ValueError(
                f"step {self.step}: nothing in the batch enters the loss; mask or decode leave no token to score"
            )
        sums: dict[str, Tensor] = {}
        self.method.train()
        with step_rng(self.recipe.seed, self.step):
            for part, count in zip(parts(fed.batch, pieces), counts, strict=True):
                with autocast(self.device, self.precision):
                    output = cast(Output, self.method(part))
                share = count / sum(counts)
                (output.loss * share).backward()
                for name, value in {"loss": output.loss, **output.metrics}.items():
                    piece = value.detach() * share
                    sums[name] = sums[name] + piece if name in sums else piece
        return sums.pop("loss"), sums

    def _after_step(self, feed: Feed) -> None:
        """Records, evaluation, checkpoint and stop, where they are due."""
        run = self.recipe.run
        saves = self.step == len(self.rates) or self.step % run.save_every == 0
        if saves or self.step % self.steps_per_epoch == 0 or self.step % run.log_every == 0:
            self.journal.read(waited_seconds=feed.waited_seconds)
        if self.stop.signal is None:
            self._evaluate()
        stops = self.stop.signal
        if saves or stops is not None:
            self.journal.read(waited_seconds=feed.waited_seconds)  # nothing is saved before its loss was looked at
            self._save()
        if stops is not None:
            raise Interrupted(stops, step=self.step)

    def _evaluate(self) -> None:
        """Call `after_epoch` at the end of an epoch; after a resume too, if the stop came before it."""
        epochs, rest = divmod(self.step, self.steps_per_epoch)
        if self.job.after_epoch is not None and rest == 0 and epochs > 0:
            self.journal.evaluate(self.step, epochs - 1, self.job.after_epoch)

    def _save(self) -> None:
        if self.step == self.saved_step:
            return
        self.journal.sync()
        state = checkpoint.Checkpoint(
            step=self.step,
            model=self.method.state_dict(),
            optimizer=self.optimizer.state(),
            average=None if self.job.ema is None else self.job.ema.average.state_dict(),
            facts={"recipe": self.recipe.model_dump(mode="json"), "torch": torch.__version__},
        )
        checkpoint.save(state, self.job.out, keep=self.recipe.run.keep)
        self.saved_step = self.step


def parts(batch: Batch, pieces: int) -> list[Batch]:
    """At most so many pieces of nearly equal size, none empty."""
    count = min(pieces, batch.size)
    bounds = [batch.size * piece // count for piece in range(count + 1)]
    return [batch.part(slice(first, last)) for first, last in pairwise(bounds)]
