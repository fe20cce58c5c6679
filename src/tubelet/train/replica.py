"""The model in this process: whole, alone or beside its like (DDP), or the rows of it that this rank holds (FSDP2)."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from tubelet.nn.block import Block
from tubelet.recipe import Run
from tubelet.train import checkpoint, sharded
from tubelet.train.checkpoint import Checkpoint
from tubelet.train.compiled import compile_blocks
from tubelet.train.distributed import barrier, is_main, place
from tubelet.train.job import Job
from tubelet.train.optim import Optimizer
from tubelet.train.spread import own_rows, spread_like, whole
from tubelet.types import Batch, Output


@runtime_checkable
class Replica(Protocol):
    """What the loop trains. A loss is multiplied by `scale` before backward: gradients are averaged over ranks."""

    optimizer: Optimizer
    scale: float
    form: str

    def __call__(self, batch: Batch) -> Output:
        """The method's output for a piece, ready for backward."""

    def waits(self, last: bool) -> AbstractContextManager[None]:
        """Around forward and backward of a piece: gradients are summed over ranks with the `last` one."""

    def follow(self) -> None:
        """After an update: the average takes in the weights."""

    def save(self, step: int, facts: Mapping[str, Any], *, keep: int) -> None:
        """Write a checkpoint; all ranks call this."""

    def load(self, folder: Path) -> None:
        """Take weights and optimiser of a checkpoint of either form; all ranks call this."""

    def settled(self) -> AbstractContextManager[None]:
        """Inside, `job.method` and `job.ema.average` hold the weights, whole, on the device; all ranks call this."""


def replica_of(job: Job, device: torch.device) -> Replica:
    """The form that `run.parallel` asks for; one process has the model whole."""
    if place().world > 1 and job.recipe.run.parallel == "fsdp":
        return SpreadReplica(job, device)
    return WholeReplica(job, device)


class WholeReplica:
    """All weights in this process. With others beside it gradients are averaged (DistributedDataParallel)."""

    def __init__(self, job: Job, device: torch.device) -> None:
        self._job = job
        self._called: nn.Module = job.method.to(device)
        compile_blocks(job.method, job.recipe.run, device)
        self.scale, self.form = float(place().world), ""
        if place().world > 1:
            self.form = "ddp"
            self._called = _beside_its_like(job.method, device)
        self.optimizer = Optimizer(job.groups, job.recipe.optim)
        if job.ema is not None:
            job.ema.average.to(device)

    def __call__(self, batch: Batch) -> Output:
        self._job.method.train()
        return cast(Output, self._called(batch))

    def waits(self, last: bool) -> AbstractContextManager[None]:
        if last or not isinstance(self._called, nn.parallel.DistributedDataParallel):
            return nullcontext()
        return cast(AbstractContextManager[None], self._called.no_sync())

    def follow(self) -> None:
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

    def settled(self) -> AbstractContextManager[None]:
        return nullcontext()


class SpreadReplica:
    """Each rank holds some rows of every weight, its gradient, its optimiser state and its average (`fully_shard`).

    `job.method` and `job.ema.average` stay on the CPU as they were, until `settled` fills them.
    """

    def __init__(self, job: Job, device: torch.device) -> None:
        self._job, self._device = job, device
        self.scale, self.form = float(place().world), "fsdp"
        self._model = _spread(job.method, device, job.recipe.run)
        self._average = None if job.ema is None else _spread(job.ema.average, device, job.recipe.run)
        named = dict(self._model.named_parameters())
        groups = [replace(one, parameters=tuple(named[name] for name in one.names)) for one in job.groups]
        self.optimizer = Optimizer(groups, job.recipe.optim)

    def __call__(self, batch: Batch) -> Output:
        self._model.train()
        return cast(Output, self._model(batch))

    def waits(self, last: bool) -> AbstractContextManager[None]:  # noqa: ARG002  rows are summed with each piece
        return nullcontext()

    @torch.no_grad()
    def follow(self) -> None:
        if self._average is not None and self._job.ema is not None:
            average = [own_rows(value) for value in self._average.parameters()]
            latest = [own_rows(value.detach()) for value in self._model.parameters()]
            torch._foreach_lerp_(average, latest, 1 - self._job.ema.decay)
            for kept, value in zip(self._average.buffers(), self._model.buffers(), strict=True):
                kept.copy_(value)

    def save(self, step: int, facts: Mapping[str, Any], *, keep: int) -> None:
        average = None if self._average is None else self._average.state_dict()
        state = Checkpoint(step, self._model.state_dict(), self.optimizer.state(), average, facts)
        checkpoint.save_sharded(state, self._job.out, keep=keep)

    def load(self, folder: Path) -> None:
        if checkpoint.is_sharded(folder):
            self._load_rows(folder)
            return
        found = checkpoint.load(folder)
        _fill(self._model, found.model, where=folder / checkpoint.MODEL)
        if self._average is not None:
            _fill(self._average, found.average or {}, where=folder / checkpoint.AVERAGE)
        self.optimizer.load_state(found.optimizer)

    def _load_rows(self, folder: Path) -> None:
        """Each rank reads its own rows; nothing is ever whole."""
        sizes = sharded.sizes(folder)
        model, optimizer, average = (_within(sizes, part) for part in checkpoint.PARTS)
        tensors = [self._model.state_dict(), {}, {} if self._average is None else self._average.state_dict()]
        checkpoint.check_fit(tensors[0], model, where=folder)
        checkpoint.check_fit(tensors[2], average if self._average is not None else {}, where=folder)
        tensors[1] = {name: self.optimizer.empty_state(name, size) for name, size in optimizer.items()}
        named = zip(checkpoint.PARTS, tensors, strict=True)
        sharded.read_into({f"{part}{name}": value for part, some in named for name, value in some.items()}, folder)
        self.optimizer.load_state(tensors[1])

    @contextmanager
    def settled(self) -> Iterator[None]:
        pairs = [(self._job.method, self._model)]
        if self._average is not None and self._job.ema is not None:
            pairs.append((self._job.ema.average, self._average))
        for plain, spread in pairs:
            plain.load_state_dict({name: whole(value).cpu() for name, value in spread.state_dict().items()})
            plain.to(self._device)
        try:
            yield
        finally:
            for plain, _ in pairs:
                plain.cpu()


def _beside_its_like(method: nn.Module, device: torch.device) -> nn.Module:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")  # torch 2.11 knows no other
        return nn.parallel.DistributedDataParallel(
            method,
            device_ids=[torch.cuda.current_device()] if device.type == "cuda" else None,
            broadcast_buffers=False,  # they are constants
            gradient_as_bucket_view=True,
        )


def _spread(module: nn.Module, device: torch.device, run: Run) -> nn.Module:
    """A copy of which this rank holds some rows; each block is gathered by itself, the rest together."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(device.type, (place().world,))
    copied = copy.deepcopy(module)
    compile_blocks(copied, run, device)
    for block in [one for one in copied.modules() if isinstance(one, Block)]:
        fully_shard(block, mesh=mesh)
        register_fsdp_forward_method(block, "tail")
    fully_shard(copied, mesh=mesh)
    return copied


def _within(sizes: Mapping[str, torch.Size], part: str) -> dict[str, torch.Size]:
    return {name.removeprefix(part): size for name, size in sizes.items() if name.startswith(part)}


def _fill(module: nn.Module, tensors: Mapping[str, Tensor], *, where: Path) -> None:
    """Load whole tensors into a spread module."""
    wanted = module.state_dict()
    checkpoint.check_fit(wanted, {name: value.shape for name, value in tensors.items()}, where=where)
    module.load_state_dict({name: spread_like(value, wanted[name]) for name, value in tensors.items()})
