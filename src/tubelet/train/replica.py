"""The model in this process: whole, alone or beside its like (DDP), or the rows of it that this rank holds."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import nn

from tubelet.methods.base import Method, state_of
from tubelet.train.building import spreads
from tubelet.train.checkpoint import folder as checkpoint
from tubelet.train.checkpoint.folder import Checkpoint
from tubelet.train.distributed.device import compile_blocks
from tubelet.train.distributed.process_group import agree_on, barrier, is_main, place
from tubelet.train.fsdp_replica import FSDPReplica
from tubelet.train.job import Job
from tubelet.train.optim import Optimizer
from tubelet.types import Batch, Output


@runtime_checkable
class Replica(Protocol):
    """What the loop trains. A loss is multiplied by `scale` before backward: gradients are averaged over ranks."""

    optimizer: Optimizer
    scale: float
    form: str

    def __call__(self, batch: Batch) -> Output:
        """The method's output for a piece, ready for backward."""

    def no_sync(self, last: bool) -> AbstractContextManager[None]:
        """Around forward and backward of a piece: gradients are summed over ranks with the `last` one."""

    def share_state(self) -> None:
        """After an update, and before `update_ema`: ranks agree on the buffers that are learnt; all ranks call this."""

    def update_ema(self) -> None:
        """After an update: the average takes in the weights."""

    def save(self, step: int, facts: Mapping[str, Any], *, keep: int) -> None:
        """Write a checkpoint; all ranks call this."""

    def load(self, folder: Path) -> None:
        """Take weights and optimiser of a checkpoint of either form; all ranks call this."""

    def begin(self) -> None:
        """Take the first weights: called, by all ranks, where no checkpoint is loaded."""

    def resharded(self) -> AbstractContextManager[None]:
        """Inside, `job.method` and `job.ema.average`, and their only part, may be called; all ranks equally often."""


def replica_of(job: Job, device: torch.device) -> Replica:
    """The form that `run.parallel` asks for; one process has the model whole."""
    if spreads(job.recipe.run):
        return FSDPReplica(job, device)
    return DDPReplica(job, device)


class DDPReplica:
    """All weights in this process. With others beside it gradients are averaged (DistributedDataParallel)."""

    def __init__(self, job: Job, device: torch.device) -> None:
        self._job = job
        self._called: nn.Module = job.method.to(device)
        compile_blocks(job.method, job.recipe.run, device)
        self.scale, self.form = float(place().world), ""
        if place().world > 1:
            self.form = "ddp"
            self._called = _beside_its_like(job.method, device)
        self.optimizer = Optimizer(job.groups, dict(job.method.named_parameters()), job.recipe.optim)
        self._state = state_of(job.method, cast(Method, job.method).state_buffers())
        if job.ema is not None:
            job.ema.average.to(device)

    def __call__(self, batch: Batch) -> Output:
        self._job.method.train()
        return cast(Output, self._called(batch))

    def no_sync(self, last: bool) -> AbstractContextManager[None]:
        if last or not isinstance(self._called, nn.parallel.DistributedDataParallel):
            return nullcontext()
        return cast(AbstractContextManager[None], self._called.no_sync())

    def share_state(self) -> None:
        agree_on(self._state)

    def update_ema(self) -> None:
        if self._job.ema is not None:
            self._job.ema.update(self._job.method)

    def save(self, step: int, facts: Mapping[str, Any], *, keep: int) -> None:
        if is_main():
            ema = self._job.ema
            state = Checkpoint(
                step=step,
                model=self._job.method.state_dict(),
                optimizer=self.optimizer.state(),
                average=None if ema is None else ema.average.state_dict(),
                facts=facts,
            )
            checkpoint.save(state, self._job.out, keep=keep)
        barrier()

    def load(self, folder: Path) -> None:
        found = checkpoint.load(folder)
        checkpoint.fill(self._job.method, found.model, where=folder / checkpoint.MODEL)
        if self._job.ema is not None:
            checkpoint.fill(self._job.ema.average, found.average or {}, where=folder / checkpoint.AVERAGE)
        self.optimizer.load_state(found.optimizer)

    def begin(self) -> None:
        """They are there."""

    def resharded(self) -> AbstractContextManager[None]:
        return nullcontext()


def _beside_its_like(method: nn.Module, device: torch.device) -> nn.Module:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")  # torch 2.11 knows no other
        return nn.parallel.DistributedDataParallel(
            method,
            device_ids=[torch.cuda.current_device()] if device.type == "cuda" else None,
            broadcast_buffers=False,  # they are constants, or `share_state` is for them
            gradient_as_bucket_view=True,
        )
