"""Bytes of the tensors that some work makes and holds, counted on any device without asking its allocator."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tubelet.plan.count.blocks import Core
from tubelet.plan.count.memory import Held
from tubelet.plan.measure.kernels import AttentionOf, Site, tried_clips
from tubelet.train.distributed.device import autocast


class Live(TorchDispatchMode):
    """Inside, `now` are the bytes of storages that were made and still live, `peak` the most there were."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self.add(value)
        return result

    def add(self, value: Tensor) -> None:
        """Count the storage of this tensor too, if it was not yet."""
        storage = value.untyped_storage()
        name = storage._cdata
        if name not in self._known:
            self._known.add(name)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._drop, name, storage.nbytes())

    def _drop(self, name: int, count: int) -> None:
        self._known.discard(name)
        self.now -= count


def attention_held(site: Site, clips: int) -> Callable[[Core, int], Held]:
    """How much the kernel that attention takes here holds: run on some of `clips` clips and looked at."""
    known: dict[Core, Held] = {}

    def held(core: Core, number: int) -> Held:  # noqa: ARG001  the site knows its numbers
        if core not in known:
            known[core] = _held(core, site, clips)
        return known[core]

    return held


def _held(core: Core, site: Site, clips: int) -> Held:
    """From some clips and from twice as many: buffers that the kernel has once do not grow with clips."""
    few = max(1, tried_clips(AttentionOf(core), clips) // 2)
    (kept, backward), (_, more) = (_look(core, site, count) for count in (few, 2 * few))
    each = max(more - backward, 0) // few
    return Held(kept // few, each, fixed=max(backward - few * each, 0))


def _look(core: Core, site: Site, clips: int) -> tuple[int, int]:
    """Bytes kept for backward, and the most that backward needs on top."""
    attention = AttentionOf(core)
    leaves = attention.build(site, clips).leaves
    with Live() as live, autocast(site.device, site.precision):
        result = attention.mix(*(leaf * 1 for leaf in leaves))  # products, for a kernel may let go of what it is given
        live.peak = kept = live.now
        result.backward(result.detach())
    return kept, live.peak - kept
