"""Seconds of a step on this machine, added up from kernels that are measured one by one: a machine model, no step.

Each kernel is timed forward and backward at the recipe's widths and tokens, on so many clips that a try is short; more
clips take in proportion longer. What is left out: glue between kernels, and how they fight for caches.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import singledispatch
from typing import Final

import torch

from tubelet.models.mvit.model import MViTSpec
from tubelet.plan.count.blocks import AnyBlock, Block
from tubelet.plan.count.pooled_blocks import PooledBlock
from tubelet.plan.count.shapes import Layout
from tubelet.plan.measure.kernels import (
    AttentionOf,
    Gelu,
    Kernel,
    LinearMap,
    Loss,
    Norm,
    Patches,
    Residual,
    Sequence,
    Site,
    tried_clips,
)
from tubelet.plan.measure.pooled_kernels import Overlapping, PooledBlockOf
from tubelet.recipe import FinetuneRecipe, PretrainRecipe
from tubelet.train.distributed.device import autocast
from tubelet.weights.teachers import planned_target

TRIES: Final = 5
LONGEST: Final = 5.0
"""Seconds after which a kernel is tried no more; once after the warm-up it always is."""
UPDATE_NUMBERS: Final = 2**22

Recipe = PretrainRecipe | FinetuneRecipe


@dataclass(frozen=True)
class Seconds:
    """Of a kernel."""

    forward: float
    backward: float


@dataclass(frozen=True)
class Run:
    """A kernel in a step: in which part, how often forward and backward."""

    part: str
    kernel: Kernel
    forward: int = 1
    backward: int = 1


def step_seconds(
    recipe: Recipe, shapes: Layout, site: Site, *, clips: int, pieces: float, parameters: int
) -> dict[str, float]:
    """Seconds of an optimiser step by part; it has so many pieces of `clips` clips, one after the other."""
    known: dict[Kernel, Seconds] = {}
    parts: dict[str, float] = {}
    for run in runs(recipe, shapes):
        if run.kernel not in known:
            known[run.kernel] = kernel_seconds(run.kernel, site, clips)
        found = known[run.kernel]
        seconds = run.forward * found.forward + run.backward * found.backward
        parts[run.part] = parts.get(run.part, 0.0) + pieces * seconds
    averaged = isinstance(recipe, FinetuneRecipe) and recipe.ema is not None
    parts["update"] = update_seconds(site, parameters, averaged=averaged)
    return parts


def runs(recipe: Recipe, shapes: Layout) -> Iterator[Run]:
    """All kernels of a piece."""
    yield from _embedding(recipe, shapes)
    for number, block in enumerate(shapes.encoder):
        yield from block_runs(block, "encoder", number < shapes.recomputed.encoder)
    if isinstance(recipe, PretrainRecipe):
        yield Run("encoder", Norm(shapes.out_grid.tokens if shapes.narrow is None else shapes.seen, _out_width(recipe)))
        if shapes.narrow is not None:
            yield Run("decoder", LinearMap(shapes.narrow, normed=True))
            yield Run("decoder", Sequence(shapes.seen, shapes.wanted, shapes.narrow.outputs))
            for number, block in enumerate(shapes.decoder):
                yield from block_runs(block, "decoder", number < shapes.recomputed.decoder)
            yield Run("head and loss", Norm(shapes.wanted, shapes.narrow.outputs))
        yield Run("head and loss", LinearMap(shapes.head, normed=True))
        yield Run("head and loss", Loss(planned_target(recipe), recipe.clip, recipe.model.encoder.cube, shapes.wanted))
    else:
        yield Run("head and loss", LinearMap(shapes.head, normed=True))


def _embedding(recipe: Recipe, shapes: Layout) -> Iterator[Run]:
    encoder = recipe.model.encoder
    if isinstance(encoder, MViTSpec):
        yield Run("patch embedding", Overlapping(encoder, recipe.clip, masked=isinstance(recipe, PretrainRecipe)))
        return
    yield Run("patch embedding", Patches(recipe.clip, encoder.cube, shapes.seen), backward=0)
    yield Run("patch embedding", LinearMap(shapes.embed, normed=True))


def _out_width(recipe: Recipe) -> int:
    encoder = recipe.model.encoder
    return encoder.out_width if isinstance(encoder, MViTSpec) else encoder.width


@singledispatch
def block_runs(block: AnyBlock, part: str, again: bool) -> Iterator[Run]:  # noqa: ARG001
    """Kernels of a block of a part; `again`: it is recomputed."""
    raise AssertionError(f"no kernels for {type(block).__name__}")


@block_runs.register
def _(block: PooledBlock, part: str, again: bool) -> Iterator[Run]:
    """In one: its many small kernels share tensors in caches, and convolutions bring them in an order of their own."""
    yield Run(part, PooledBlockOf(block), forward=2 if again else 1)


@block_runs.register
def _(block: Block, part: str, again: bool) -> Iterator[Run]:
    *asking, projection, widen, shrink = block.linears
    residual = Residual(block.rows, block.width, scaled=block.scaled, dropped=block.dropped)
    kernels: list[Kernel] = [
        Norm(block.tokens, block.width),
        *(LinearMap(one, normed=True) for one in asking),
        AttentionOf(block.core),
        LinearMap(projection, normed=False),
        residual,
        Norm(block.rows, block.width),
        LinearMap(widen, normed=True),
        Gelu(block.rows, block.hidden),
    ]
    last: list[Kernel] = [LinearMap(shrink, normed=False), residual]
    for kernel in kernels:
        yield Run(part, kernel, forward=2 if again else 1)
    for kernel in last:
        yield Run(part, kernel, forward=2 if again and block.recomputes_all else 1)


def kernel_seconds(kernel: Kernel, site: Site, clips: int) -> Seconds:
    """Medians of a few tries after one to warm up, for `clips` clips."""
    tried = tried_clips(kernel, clips)
    trial = kernel.build(site, tried)
    found: list[tuple[float, float]] = []
    begun = time.perf_counter()
    while len(found) < 2 or (len(found) <= TRIES and time.perf_counter() - begun < LONGEST):
        for leaf in trial.leaves:
            leaf.grad = None
        started = _now(site)
        with autocast(site.device, site.precision):
            result = trial.forward()
        middle = _now(site)
        if trial.leaves:
            result.backward(torch.ones_like(result))
        found.append((middle - started, _now(site) - middle))
    forward, backward = (statistics.median(times) for times in zip(*found[1:], strict=True))
    return Seconds(forward * clips / tried, backward * clips / tried)


def update_seconds(site: Site, parameters: int, *, averaged: bool) -> float:
    """Norm of the gradients, AdamW, and the average if there is one; of some parameters, in proportion for all."""
    count = min(parameters, UPDATE_NUMBERS)
    weights = site.leaf(count)
    kept = weights.detach().clone()
    adamw = torch.optim.AdamW([weights], lr=1e-6, fused=True)
    found = []
    for _ in range(1 + TRIES):
        weights.grad = torch.ones_like(weights)
        started = _now(site)
        torch.nn.utils.get_total_norm([weights.grad])
        adamw.step()
        if averaged:
            kept.lerp_(weights.detach(), 1e-4)
        found.append(_now(site) - started)
    return statistics.median(found[1:]) * parameters / count


def _now(site: Site) -> float:
    if site.device.type == "cuda":
        torch.cuda.synchronize(site.device)
    return time.perf_counter()
