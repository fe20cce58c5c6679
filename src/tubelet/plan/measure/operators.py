"""Seconds of a step on this machine, added up from its operators, which are measured one by one: no step is run.

The step runs without numbers, on so few clips that operators are short, and its operators are noted: which, on tensors
of which shapes, how often, in which part. Each is then run by itself on tensors of those shapes; more clips take in
proportion longer. What Python and autograd do between two operators is measured of a tiny network, and does
not grow with clips. What is left out is how operators fight for caches.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from tubelet.plan.count.step import HEAD, PlannedStep, TargetShape
from tubelet.plan.count.trace import TraceWatch, no_numbers, run_step
from tubelet.plan.equipment import Device
from tubelet.recipe import FinetuneRecipe
from tubelet.rng import step_rng

TRIED_FLOPS: Final = 1e12
"""Most FLOPs of the step whose operators are tried."""
TRIES: Final = 5
LONGEST: Final = 5.0
"""Seconds after which an operator is tried no more; once after the warm-up it always is."""
COLD_BYTES: Final = 2**26
"""What no cache holds: weights of a step come from memory, so tries walk over several copies of small tensors."""
COPIES: Final = 8
GLUE_LAYERS: Final = 20
UPDATE_NUMBERS: Final = 2**22


class TensorShape(NamedTuple):
    """A tensor without its numbers."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    def build(self, device: torch.device) -> Tensor:
        """Numbers are all one half, or 0 where they are whole: none is drawn, and each is a valid index."""
        steps = zip(self.size, self.stride, strict=True)
        span = 1 + sum((side - 1) * stride for side, stride in steps) if all(self.size) else 0
        value = 0.5 if self.dtype.is_floating_point else 0
        return torch.full((span,), value, dtype=self.dtype, device=device).as_strided(self.size, self.stride)


@dataclass(frozen=True)
class Operator:
    """An operator as a step calls it; `leaves` of its arguments, which are put together by `form`."""

    func: Any
    leaves: tuple[Any, ...]
    form: Any

    def build(self, device: torch.device) -> Callable[[], object]:
        """Ready to run; each call takes other tensors than the one before it, where those are small."""
        shapes = [one for one in self.leaves if isinstance(one, TensorShape)]
        total = sum(torch.Size(one.size).numel() * one.dtype.itemsize for one in shapes)
        given = [self._arguments(device) for _ in range(max(1, min(COPIES, COLD_BYTES // max(total, 1))))]
        turn = iter(range(10**9))

        def run() -> object:
            args, kwargs = given[next(turn) % len(given)]
            return self.func(*args, **kwargs)

        return run

    def _arguments(self, device: torch.device) -> Any:
        built = [one.build(device) if isinstance(one, TensorShape) else one for one in self.leaves]
        return tree_unflatten(built, self.form)


class Operators(TraceWatch):
    """Counts the operators of each part."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[tuple[str, Operator]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves, form = tree_flatten((args, kwargs))
        self.found[self.part, Operator(func, tuple(map(_without_numbers, leaves)), form)] += 1
        return func(*args, **kwargs)

    def counts(self) -> Counter[str]:
        """How many each part has."""
        found: Counter[str] = Counter()
        for (part, _), times in self.found.items():
            found[part] += times
        return found


def step_seconds(step: PlannedStep, here: Device, *, clips: int, pieces: float, clip_flops: int) -> dict[str, float]:
    """Seconds of an optimiser step by part; it has so many pieces of `clips` clips, one after the other."""
    tried = max(1, min(clips, int(TRIED_FLOPS / max(clip_flops, 1))))
    operators = Operators()
    with no_numbers(step, here.device) as held:
        batch = held.batch(tried, here.device)
        run_step(held, batch, operators, device=here.device, precision=here.precision)
    with step_rng(0, 0):  # an operator may draw
        seconds = operator_seconds(operators, here)
        between = seconds_between(here)
    target, counts = step.shape().target, operators.counts()
    if target is not None:
        seconds[HEAD] += target_seconds(target, here, tried)
    parts = {part: pieces * (seconds[part] * clips / tried + counts[part] * between) for part in seconds}
    averaged = isinstance(step.recipe, FinetuneRecipe) and step.recipe.ema is not None
    return {**parts, "update": update_seconds(here, step.parameters()["total"], averaged=averaged)}


@torch.no_grad()
def operator_seconds(operators: Operators, here: Device) -> dict[str, float]:
    """Seconds of each part: of its operators, run by themselves. Views take none."""
    known: dict[Operator, float] = {}
    parts: dict[str, float] = {}
    for (part, operator), times in operators.found.items():
        if operator not in known:
            known[operator] = 0.0 if _is_view(operator.func) else median_seconds(operator.build(here.device), here)
        parts[part] = parts.get(part, 0.0) + times * known[operator]
    return parts


def seconds_between(here: Device) -> float:
    """What lies between two operators, forward and backward, where a processor waits for it: of a tiny network."""
    if here.device.type != "cpu":
        return 0.0
    layers = (part for _ in range(GLUE_LAYERS) for part in (nn.LayerNorm(8), nn.Linear(8, 8), nn.GELU()))
    network, given = nn.Sequential(*layers), torch.ones(8, 8)
    operators = Operators()
    with operators:
        network(given).sum().backward()
    whole = median_seconds(lambda: network(given).sum().backward(), here)
    return max(0.0, whole - sum(operator_seconds(operators, here).values())) / operators.found.total()


def target_seconds(target: TargetShape, here: Device, clips: int) -> float:
    """Seconds that targets take to make, without a frozen network, which says the same of all clips in a plan."""
    clip = target.clip
    shape = (clips, 3, clip.frames, clip.size, clip.size)
    video = (torch.arange(torch.Size(shape).numel(), device=here.device) % 251).to(torch.uint8).view(shape)
    wanted = torch.arange(target.wanted, device=here.device).expand(clips, -1).contiguous()
    return median_seconds(lambda: target.target.rows(video, wanted, target.cube), here)


def update_seconds(here: Device, parameters: int, *, averaged: bool) -> float:
    """Norm of the gradients, AdamW, and the average if there is one; of some parameters, in proportion for all."""
    count = min(parameters, UPDATE_NUMBERS)
    weights = torch.linspace(-1, 1, count, device=here.device).requires_grad_()
    weights.grad = gradient = torch.ones_like(weights)
    kept = weights.detach().clone()
    adamw = torch.optim.AdamW([weights], lr=1e-6, fused=True)

    def update() -> None:
        torch.nn.utils.get_total_norm([gradient])
        adamw.step()
        if averaged:
            kept.lerp_(weights.detach(), 1e-4)

    return median_seconds(update, here) * parameters / count


def median_seconds(run: Callable[[], object], here: Device) -> float:
    """Median of a few tries after one to warm up."""
    found: list[float] = []
    begun = time.perf_counter()
    while len(found) < 2 or (len(found) <= TRIES and time.perf_counter() - begun < LONGEST):
        started = here.now()
        run()
        found.append(here.now() - started)
    return statistics.median(found[1:])


def _is_view(func: Any) -> bool:
    schema = func._schema
    return not schema.is_mutable and any(one.alias_info is not None for one in schema.returns)


def _without_numbers(leaf: Any) -> Any:
    return TensorShape(tuple(leaf.shape), leaf.stride(), leaf.dtype) if isinstance(leaf, Tensor) else leaf
