"""A training step run without numbers: FLOPs of its parts, and bytes of tensors at each moment.

FLOPs are counted by the formulas of `torch.utils.flop_counter`. Its `FlopCounterMode` itself hangs hooks on modules,
which keep what recomputed blocks made, so that bytes could not be counted beside it. Bytes are counted here and not by
`torch.distributed._tools.mem_tracker.MemTracker`, which gives the peak of one batch size by module: a plan asks for
any number of clips, with gradients that stay, go or are shared by devices, and needs for that at each moment what
grows with clips, what does not, and which gradients are there already.

So the step runs once, on `CLIPS` clips, a prime number: a tensor grows with clips where its bytes are a multiple of it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, is_dataclass
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import conv_flop_count, flop_registry

from tubelet.plan.count.step import DECODER, EMBEDDING, ENCODER, HEAD, META, PlannedStep
from tubelet.train.distributed.device import autocast
from tubelet.types import Batch

CLIPS: Final = 19
FORWARD, BACKWARD = "forward", "backward"
PARAMETER_BYTES: Final = 4
COPIES: Final = "copies"
aten: Any = torch.ops.aten


class Bytes(NamedTuple):
    """So many for the step, and so many for each of its clips."""

    fixed: int = 0
    each: int = 0

    def of(self, clips: int) -> int:
        return self.fixed + clips * self.each

    def __add__(self, other: Any) -> Bytes:
        return Bytes(self.fixed + other.fixed, self.each + other.each)

    def __sub__(self, other: Bytes) -> Bytes:
        return Bytes(self.fixed - other.fixed, self.each - other.each)


class Moment(NamedTuple):
    """What is there at a moment, without weights, batch and `gradients`: bytes of those that are made by then."""

    name: str
    bytes: Bytes
    gradients: int


@dataclass(frozen=True)
class StepTrace:
    """`flops` of a clip by phase and part; `moments` in order; `kept` by part and `copies` at the end of forward.

    `copies` are weights in the precision of the run. `targets` is the number of the moment when they are made.
    """

    flops: dict[tuple[str, str], int]
    moments: tuple[Moment, ...]
    kept: dict[str, Bytes]
    copies: int
    targets: int | None


class Live(TorchDispatchMode):
    """Inside, `now` are the bytes of storages that were made and still live, `peak` the most there were."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in _tensors(result):
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


class TraceWatch(TorchDispatchMode):
    """Sees every operator of a step, and knows the phase and the part of the step that it belongs to."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.phase, self.part = FORWARD, EMBEDDING

    def enter(self, phase: str, part: str) -> None:
        """What follows belongs to this part."""
        self.phase, self.part = phase, part

    def away(self) -> AbstractContextManager[None]:
        """Inside, what is computed stays in a kernel."""
        return nullcontext()

    @contextmanager
    def parts_of(self, step: PlannedStep) -> Iterator[None]:
        """Inside, parts begin where the first block, the decoder and the head do, and in backward end there."""
        starts = [(step.encoder.stack()[0], ENCODER), (step.decoder, DECODER), (step.head, HEAD)]
        before, handles = EMBEDDING, []
        for module, part in starts:
            if module is not None:
                handles.append(module.register_forward_pre_hook(self._on_start(before, part)))
                before = part
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _on_start(self, before: str, part: str) -> Callable[[nn.Module, Any], None]:
        def start(module: nn.Module, given: Any) -> None:
            del module
            if self.phase == FORWARD:  # blocks start again where they are recomputed
                self.enter(FORWARD, part)
                if given[0].requires_grad:
                    given[0].register_hook(lambda _: self.enter(BACKWARD, before))

        return start


class Tracker(TraceWatch):
    """Follows bytes and FLOPs of a step of `CLIPS` clips. What lies still (weights, clips) does not count."""

    def __init__(self, step: PlannedStep) -> None:
        super().__init__()
        self._step = step
        self._formulas = {**flop_registry, aten.convolution_backward: _convolution_backward}
        self._weights = {_name(one) for one in step.method.parameters()}
        self._known: dict[int, tuple[Bytes, str]] = {}
        self._now, self._gradients, self._is_away = Bytes(), 0, False
        self._kept: dict[str, Bytes] = {}
        self._moments: list[Moment] = []
        self._targets: int | None = None
        self._flops: dict[tuple[str, str], int] = {}

    def trace(self, device: torch.device, precision: torch.dtype) -> StepTrace:
        """Run the step and say what was seen; FLOPs are right on "meta" only, where attention is its products."""
        step = self._step
        for weight in step.method.parameters():
            weight.register_post_accumulate_grad_hook(self._take_gradient)
        if step.rows is not None:
            step.rows.on_rows = self._note_targets
        batch = step.batch(CLIPS, device)
        still = (*step.method.parameters(), *step.method.buffers(), *_tensors(vars(batch)))
        self._known = {_name(one): (Bytes(), "") for one in still}
        run_step(step, batch, self, device=device, precision=precision)
        copies = self._kept.pop(COPIES, Bytes()).fixed
        flops = {name: count // CLIPS for name, count in self._flops.items()}
        return StepTrace(flops, tuple(self._moments), self._kept, copies, self._targets)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = self._formulas.get(func.overloadpacket)
        if formula is not None:
            name = self.phase, self.part
            count = formula(*args, **(kwargs or {}), out_val=result)
            self._flops[name] = self._flops.get(name, 0) + count
        if self._is_away:
            return result
        is_copy = func is aten._to_copy.default and _name(args[0]) in self._weights
        before = len(self._known)
        for value in _tensors(result):
            self._add(value.untyped_storage(), COPIES if is_copy else self.part)
        if len(self._known) > before:
            self._moments.append(self._moment(f"{self.phase} of the {self.part}"))
        return result

    def enter(self, phase: str, part: str) -> None:
        if phase == BACKWARD and self.phase == FORWARD:
            for count, made_by in self._known.values():
                self._kept[made_by] = self._kept.get(made_by, Bytes()) + count
            self._kept.pop("")
        super().enter(phase, part)

    @contextmanager
    def away(self) -> Iterator[None]:
        """FLOPs are counted there, and bytes are not."""
        self._is_away = True
        try:
            yield
        finally:
            self._is_away = False

    def _moment(self, name: str) -> Moment:
        return Moment(name, self._now, self._gradients)

    def _take_gradient(self, weight: Tensor) -> None:
        """A gradient is whole: it is counted by itself from now on."""
        self._gradients += PARAMETER_BYTES * weight.numel()
        weight.grad = None

    def _note_targets(self) -> None:
        self._targets = len(self._moments)
        self._moments.append(self._moment("forward of the target"))

    def _add(self, storage: torch.UntypedStorage, made_by: str) -> None:
        name, count = storage._cdata, storage.nbytes()
        if name not in self._known:
            found = Bytes(count, 0) if count % CLIPS else Bytes(0, count // CLIPS)
            self._known[name] = (found, made_by)
            self._now += found
            weakref.finalize(storage, self._drop, name)

    def _drop(self, name: int) -> None:
        self._now -= self._known.pop(name)[0]


_traces: WeakKeyDictionary[PlannedStep, dict[tuple[torch.device, torch.dtype], StepTrace]] = WeakKeyDictionary()


def trace_step(step: PlannedStep, *, device: torch.device, precision: torch.dtype) -> StepTrace:
    """Run a step without numbers, once, as on this device; on "meta" as on a GPU, whose kernels need not be here."""
    known = _traces.setdefault(step, {})
    if (device, precision) not in known:
        with no_numbers(step, device) as held:
            known[device, precision] = Tracker(held).trace(device, precision)
    return known[device, precision]


def run_step(
    step: PlannedStep, batch: Batch, watch: TraceWatch, *, device: torch.device, precision: torch.dtype
) -> None:
    """Forward and backward of a step, seen by `watch`."""
    on_gpu = GpuKernels(precision, watch.away) if device == META else nullcontext()
    with watch.parts_of(step), watch, on_gpu:
        with nullcontext() if device == META else autocast(device, precision):
            loss = step.method.train()(batch).loss
        watch.enter(BACKWARD, HEAD)
        _backward(loss)
        watch.enter(BACKWARD, EMBEDDING)


@contextmanager
def no_numbers(step: PlannedStep, device: torch.device) -> Iterator[PlannedStep]:
    """A copy of the step with its method on this device; inside, nothing is computed there."""
    held = step.copy()
    with nullcontext() if device == META else FakeTensorMode(allow_non_fake_inputs=True):
        held.method.to_empty(device=device)
        yield held


LOWERED: Final = {
    *(F.linear, torch.conv1d, torch.conv2d, torch.conv3d, torch.matmul, torch.bmm, torch.mm, torch.addmm, torch.einsum),
    *(torch.Tensor.matmul, torch.Tensor.__matmul__),
}
"""Computed in bf16 where a run computes in bf16, as `torch.autocast` has it."""
RAISED: Final = {
    *(F.layer_norm, F.softmax, torch.softmax, torch.Tensor.softmax, F.log_softmax, F.cross_entropy),
    F.multi_head_attention_forward,  # of `nn.MultiheadAttention`: on a GPU less, for what is in it is not seen
}
"""Computed in fp32."""


class GpuKernels(TorchFunctionMode):
    """Inside, functions on the meta device make what they make on a GPU: `torch.autocast` does not know that device.

    Attention is a fused kernel (arXiv:2205.14135). Values that are padded to be as wide as keys are an affair of the
    kernel: FLOPs are counted without.
    """

    def __init__(self, precision: torch.dtype, away: Callable[[], AbstractContextManager[None]]) -> None:
        super().__init__()
        self._precision, self._away = precision, away
        self._padded: tuple[Tensor | None, int] = (None, 0)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and len(args) == 3 and kwargs.get("attn_mask") is None:
            q, k, v = _cast(args, self._precision)
            width = self._padded[1] if args[2] is self._padded[0] else None
            return FusedAttention.apply(q, k, v, width, self._away)  # type: ignore[no-untyped-call]
        if func in LOWERED or func in RAISED:
            args = _cast(args, self._precision if func in LOWERED else torch.float32)
        result = func(*args, **kwargs)
        if func is F.pad:
            self._padded = (result, args[0].shape[-1])
        return result


class FusedAttention(torch.autograd.Function):
    """Shapes of a kernel that keeps queries, keys, values, its result and log-sums, never the weights."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, width: int | None, away: Any) -> Tensor:
        result, sums = _rows_of_heads(q, v.shape[-1]), q.new_empty(q.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(q, k, v, result, sums)
        ctx.width, ctx.away = width, away
        with away():
            q, k, v = (one[..., :width] for one in (q, k, v))
            (q @ k.mT) @ v
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *_ = ctx.saved_tensors
        found = [_rows_of_heads(one, one.shape[-1]) for one in (q, k, v)]
        with ctx.away():
            q, k, v, gradient = (one[..., : ctx.width] for one in (q, k, v, *gradients))
            weights = q.new_empty(*q.shape[:-1], k.shape[-2])
            weights.mT @ gradient, gradient @ v.mT, weights @ k, weights.mT @ q
        return (*found, None, None)


def _rows_of_heads(like: Tensor, width: int) -> Tensor:
    """[B,heads,N,d] as kernels lay it out: all heads of a token side by side."""
    batch, heads, tokens, _ = like.shape
    return like.new_empty(batch, tokens, heads, width).transpose(1, 2)


def _cast(given: tuple[Any, ...], precision: torch.dtype) -> tuple[Any, ...]:
    """fp32 and bf16 tensors in this precision, all else as it is. (`tree_map` would keep them until garbage goes.)"""
    floats = (torch.float32, torch.bfloat16)
    return tuple(one.to(precision) if isinstance(one, Tensor) and one.dtype in floats else one for one in given)


def _backward(loss: Tensor) -> None:
    """As `loss.backward()`, which would leave `GpuKernels`, so that recomputed blocks ran without."""
    engine: Any = torch.autograd.Variable._execution_engine
    ones = (torch.ones_like(loss),)
    engine.run_backward((loss,), ones, False, False, (), allow_unreachable=True, accumulate_grad=True)


def _convolution_backward(gradient: Tensor, video: Tensor, weight: Tensor, *others: Any, out_val: Any) -> int:
    """As many as forward for the gradient of the video, if there is one, and for that of the weight.

    torch's own count takes grouped convolutions for dense ones.
    """
    transposed, wanted = others[4], len([one for one in out_val[:2] if one is not None])
    count: int = conv_flop_count(list(video.shape), list(weight.shape), list(gradient.shape), transposed)
    return wanted * count


def _tensors(held: Any) -> Iterator[Tensor]:
    """All of them, in dataclasses too."""
    for value in tree_iter(held):
        if isinstance(value, Tensor):
            yield value
        elif is_dataclass(value):
            yield from _tensors(vars(value))


def _name(value: Tensor) -> int:
    address: int = value.untyped_storage()._cdata
    return address
