"""Tensors of which each rank holds some rows (FSDP2), and whole ones: the way from one to the other."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from tubelet.train.distributed.process_group import is_main


def is_sharded(value: Tensor) -> bool:
    """Whether each rank holds some rows of it only."""
    module: Any = sys.modules.get("torch.distributed.tensor")  # not imported (it takes a while): there are none
    return module is not None and isinstance(value, module.DTensor)


def full_tensor(value: Tensor) -> Tensor:
    """All rows; of a spread tensor all ranks call this."""
    if not is_sharded(value):
        return value
    full: Tensor = value.full_tensor()  # type: ignore[attr-defined]
    return full


def local_rows(value: Tensor) -> Tensor:
    """The rows that this rank holds, sharing memory."""
    if not is_sharded(value):
        return value
    local: Tensor = value.to_local()  # type: ignore[attr-defined]
    return local


def local_slice(value: Tensor) -> slice:
    """Which rows of a spread tensor this rank holds: ranks after another have equally many, the last ones fewer."""
    from torch.distributed.tensor import DTensor, Shard

    assert isinstance(value, DTensor)
    assert value.placements == (Shard(0),), "spread by rows, over one mesh"
    rows, mesh = value.shape[0], value.device_mesh
    each = -(-rows // mesh.size())
    first = min(each * mesh.get_local_rank(), rows)
    return slice(first, min(first + each, rows))


def scatter(first: dict[str, Tensor], targets: Mapping[str, Tensor]) -> None:
    """Fill the targets with the tensors of rank 0, tensor by tensor, spread ones each rank its rows; all ranks call it.

    What is dealt is taken out of `first`, so that nobody holds it longer. No device has more than one whole tensor.
    """
    for name, target in targets.items():
        shape, kind, device = target.shape, target.dtype, target.device
        value = first.pop(name).to(device) if is_main() else torch.empty(shape, dtype=kind, device=device)
        if is_sharded(target):
            local_rows(target).copy_(local_rows(_shared(value, target, source=0)))
        else:
            dist.broadcast(value, src=0)
            target.copy_(value)
    first.clear()


def on_first_host(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Spread tensors put together on the host of rank 0, one after the other, and nothing in other ranks; all call it.

    Tensors of which none is spread come back as they are.
    """
    if not any(is_sharded(value) for value in tensors.values()):
        return tensors
    found = {}
    for name, value in tensors.items():
        full = full_tensor(value.detach())
        if is_main():
            found[name] = full.cpu()
    return found


def shard_like(value: Tensor, pattern: Tensor) -> Tensor:
    """A whole tensor, the same in all ranks, spread as `pattern` is; nothing changes unless the shapes agree."""
    if not is_sharded(pattern) or is_sharded(value) or value.shape != pattern.shape:
        return value
    return _shared(value.to(pattern.device), pattern, source=None)


def _shared(value: Tensor, pattern: Tensor, *, source: int | None) -> Tensor:
    """`source` is the rank whose numbers count; None where all have the same ones."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(pattern, DTensor)
    shared: Tensor = distribute_tensor(value, pattern.device_mesh, pattern.placements, src_data_rank=source)
    return shared
