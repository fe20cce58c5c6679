"""The rows of the model that this rank holds (FSDP2). No rank ever has all of it on its device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from tubelet.models.encoders import blocks_of
from tubelet.nn.block import Block
from tubelet.nn.constants import restore_constants
from tubelet.train.building import has_weights, to_meta
from tubelet.train.checkpoint import folder as checkpoint
from tubelet.train.checkpoint.folder import Checkpoint
from tubelet.train.distributed.device import compile_blocks
from tubelet.train.distributed.process_group import is_main, place
from tubelet.train.distributed.shard import local_rows, scatter
from tubelet.train.job import Job
from tubelet.train.optim import Optimizer
from tubelet.types import Batch, Output


class FSDPReplica:
    """Each rank holds some rows of every weight, its gradient, its optimiser state and its average (`fully_shard`).

    `job.method` and `job.ema.average` become so in place. Each block is gathered by itself when it is needed, and so
    are the weights outside blocks. Rank 0 keeps the first weights on its host until `begin` deals them out.
    """

    def __init__(self, job: Job, device: torch.device) -> None:
        self._job, self._method = job, job.method
        self._average = None if job.ema is None else job.ema.average
        self.scale, self.form = float(place().world), "fsdp"
        self._first = to_meta(job.method) if is_main() and has_weights(job.method) else {}
        compile_blocks(job.method, job.recipe.run, device)
        root = _root_of(job.method)
        shells = [one for one in (self._method, self._average) if one is not None]
        self._roots = [_spread(shell, root, device) for shell in shells]
        self.optimizer = Optimizer(job.groups, dict(job.method.named_parameters()), job.recipe.optim)

    def __call__(self, batch: Batch) -> Output:
        self._method.train()
        return cast(Output, self._method(batch))

    def no_sync(self, last: bool) -> AbstractContextManager[None]:  # noqa: ARG002  rows are summed with each piece
        return nullcontext()

    @torch.no_grad()
    def begin(self) -> None:
        assert self._first or not is_main(), "neither first weights nor a checkpoint"
        scatter(self._first, self._method.state_dict())
        if self._average is not None:
            for kept, value in zip(self._average.parameters(), self._method.parameters(), strict=True):
                local_rows(kept).copy_(local_rows(value))
            self._copy_buffers(self._average)

    @torch.no_grad()
    def update_ema(self) -> None:
        if self._average is not None and self._job.ema is not None:
            average = [local_rows(value) for value in self._average.parameters()]
            latest = [local_rows(value.detach()) for value in self._method.parameters()]
            torch._foreach_lerp_(average, latest, 1 - self._job.ema.decay)
            self._copy_buffers(self._average)

    def _copy_buffers(self, average: nn.Module) -> None:
        for kept, value in zip(average.buffers(), self._method.buffers(), strict=True):
            kept.copy_(value)

    def save(self, step: int, facts: Mapping[str, Any], *, keep: int) -> None:
        average = None if self._average is None else self._average.state_dict()
        state = Checkpoint(step, self._method.state_dict(), self.optimizer.state(), average, facts)
        checkpoint.save_sharded(state, self._job.out, keep=keep)

    def load(self, folder: Path) -> None:
        """Each rank reads its own rows; nothing is ever whole."""
        self._first.clear()
        sizes = checkpoint.sizes(folder)
        model, optimizer, average = (_within(sizes, part) for part in checkpoint.PARTS)
        tensors = [self._method.state_dict(), {}, {} if self._average is None else self._average.state_dict()]
        checkpoint.check_fit(tensors[0], model, where=folder)
        checkpoint.check_fit(tensors[2], average if self._average is not None else {}, where=folder)
        tensors[1] = {name: self.optimizer.empty_state(name, size) for name, size in optimizer.items()}
        named = zip(checkpoint.PARTS, tensors, strict=True)
        wanted = {f"{part}{name}": value for part, some in named for name, value in some.items()}
        checkpoint.read_into(wanted, folder)
        self.optimizer.load_state(tensors[1])

    @contextmanager
    def resharded(self) -> Iterator[None]:
        try:
            yield
        finally:  # a pass without backward leaves the weights outside blocks whole
            for root in self._roots:
                root.reshard()


def _root_of(method: nn.Module) -> str:
    """The name of the innermost module that has all weights: whoever evaluates may call it, not only the method."""
    count = _weights(method)
    holding: list[str] = [name for name, module in method.named_modules() if _weights(module) == count]
    return holding[-1]


def _weights(module: nn.Module) -> int:
    return sum(1 for _ in module.parameters())


def _spread(module: nn.Module, root: str, device: torch.device) -> Any:
    """Make of a module the rows that this rank holds, numbers undefined but for constants; gives the part named `root`.

    Each block is gathered by itself, the rest together. The module is a shell for the time, so that only rows are made.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    to_meta(module)
    mesh = init_device_mesh(device.type, (place().world,))
    for block in blocks_of(module):
        fully_shard(block, mesh=mesh)
        if isinstance(block, Block):
            register_fsdp_forward_method(block, "tail")
    gathered = fully_shard(module.get_submodule(root), mesh=mesh)
    module.to_empty(device=device)
    restore_constants(module)
    return gathered


def _within(sizes: Mapping[str, torch.Size], part: str) -> dict[str, torch.Size]:
    return {name.removeprefix(part): size for name, size in sizes.items() if name.startswith(part)}
