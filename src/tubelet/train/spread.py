"""Tensors of which each rank holds some rows (FSDP2), and whole ones: the way from one to the other."""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor


def is_spread(value: Tensor) -> bool:
    """Whether each rank holds some rows of it only."""
    module: Any = sys.modules.get("torch.distributed.tensor")  # not imported (it takes a while): there are none
    return module is not None and isinstance(value, module.DTensor)


def whole(value: Tensor) -> Tensor:
    """All rows; of a spread tensor all ranks call this."""
    if not is_spread(value):
        return value
    full: Tensor = value.full_tensor()  # type: ignore[attr-defined]
    return full


def own_rows(value: Tensor) -> Tensor:
    """The rows that this rank holds, sharing memory."""
    if not is_spread(value):
        return value
    local: Tensor = value.to_local()  # type: ignore[attr-defined]
    return local


def spread_like(value: Tensor, pattern: Tensor) -> Tensor:
    """A whole tensor, the same in all ranks, spread as `pattern` is; nothing changes unless the shapes agree."""
    if not is_spread(pattern) or is_spread(value) or value.shape != pattern.shape:
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(pattern, DTensor)
    spread: Tensor = distribute_tensor(
        value.to(pattern.device), pattern.device_mesh, pattern.placements, src_data_rank=None
    )
    return spread
