"""The kernels that a training step is made of, each to be run by itself on numbers of the right shape.

A kernel is plain data; `build` gives what to run forward and the leaves that backward goes to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from tubelet.nn.attention import attend
from tubelet.nn.pixels import Normalise, all_cubes, take_cubes
from tubelet.nn.position import take_rows
from tubelet.plan.count import blocks
from tubelet.targets.unions import Target
from tubelet.types import ClipShape, Cube

PRODUCTS_A_NUMBER: Final = 500
"""Products that take as long as moving one number, roughly."""
TRY_COST: Final = 2e7
"""What a try may cost forward (see `Kernel.cost`): some ten milliseconds on a core."""
COLD_NUMBERS: Final = 2**24
"""Numbers that no cache holds."""


@dataclass(frozen=True)
class Site:
    """Where kernels run, and the precision of matrix products there."""

    device: torch.device
    precision: torch.dtype

    def leaf(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Some numbers, none of them drawn, that want a gradient."""
        count = torch.Size(shape).numel()
        return torch.linspace(-1, 1, count, device=self.device, dtype=dtype).view(shape).requires_grad_()


class Trial(NamedTuple):
    """What to run, and the leaves whose gradients are dropped before it runs again."""

    forward: Callable[[], Tensor]
    leaves: tuple[Tensor, ...]


@runtime_checkable
class Kernel(Protocol):
    """`cost` is what a clip takes, in numbers moved or products by 500: tries are cut to equal cost."""

    @property
    def cost(self) -> float:
        """Of a clip, forward."""

    def build(self, site: Site, clips: int) -> Trial:
        """Ready to run on so many clips."""


@dataclass(frozen=True)
class LinearMap:
    """A linear map. `normed`: its input is fp32, as norms give it, and is cast; else it has the run's precision.

    A matrix of a step comes from memory, so the trial walks over several; a cache would be too quick.
    """

    linear: blocks.Linear
    normed: bool

    @property
    def cost(self) -> float:
        return self.linear.rows * self.linear.inputs * self.linear.outputs / PRODUCTS_A_NUMBER

    def build(self, site: Site, clips: int) -> Trial:
        rows, inputs, outputs, first = self.linear
        dtype = torch.float32 if self.normed else site.precision
        tokens = site.leaf(clips, rows, inputs, dtype=dtype).requires_grad_(not first)
        count = max(1, min(8, COLD_NUMBERS // (inputs * outputs)))
        weights = [site.leaf(outputs, inputs) for _ in range(count)]
        bias, turn = site.leaf(outputs), iter(range(10**6))
        return Trial(lambda: F.linear(tokens, weights[next(turn) % count], bias), (tokens, bias, *weights))


@dataclass(frozen=True)
class AttentionOf:
    """What lies between the linear maps of a block's attention, by the kernel that `tubelet.nn.attention` chooses."""

    core: blocks.Core

    @property
    def cost(self) -> float:
        return 2 * self.core.rows * self.core.tokens * self.core.width / PRODUCTS_A_NUMBER

    def build(self, site: Site, clips: int) -> Trial:
        core, precision = self.core, site.precision
        asks = site.leaf(clips, core.rows, core.width, dtype=precision)
        known = site.leaf(clips, core.tokens, 2 * core.width, dtype=precision)

        return Trial(lambda: self.mix(asks, known), (asks, known))

    def mix(self, asks: Tensor, known: Tensor) -> Tensor:
        """Queries, and keys beside values, to what the projection reads."""
        parts = (asks, *known.chunk(2, dim=-1))
        q, k, v = (x.unflatten(-1, (self.core.heads, -1)).transpose(1, 2) for x in parts)
        return attend(q, k, v).transpose(1, 2).flatten(2)


@dataclass(frozen=True)
class Norm:
    """A layer norm of fp32 rows."""

    rows: int
    width: int

    @property
    def cost(self) -> float:
        return float(self.rows * self.width)

    def build(self, site: Site, clips: int) -> Trial:
        tokens, weight, bias = site.leaf(clips, self.rows, self.width), site.leaf(self.width), site.leaf(self.width)
        return Trial(lambda: F.layer_norm(tokens, (self.width,), weight, bias), (tokens, weight, bias))


@dataclass(frozen=True)
class Gelu:
    """The non-linear part of an MLP."""

    rows: int
    hidden: int

    @property
    def cost(self) -> float:
        return float(self.rows * self.hidden)

    def build(self, site: Site, clips: int) -> Trial:
        tokens = site.leaf(clips, self.rows, self.hidden, dtype=site.precision)
        return Trial(lambda: F.gelu(tokens), (tokens,))


@dataclass(frozen=True)
class Residual:
    """A branch added to fp32 tokens, after layer scale and drop path if there are; backward adds their gradients."""

    rows: int
    width: int
    scaled: bool
    dropped: bool

    @property
    def cost(self) -> float:
        return float(self.rows * self.width)

    def build(self, site: Site, clips: int) -> Trial:
        tokens = site.leaf(clips, self.rows, self.width)
        branch = site.leaf(clips, self.rows, self.width, dtype=site.precision)
        gradient = torch.ones_like(tokens)
        tokens.register_hook(lambda arrived: arrived + gradient)
        scale, mask = site.leaf(self.width), torch.ones(clips, 1, 1, device=site.device, dtype=site.precision)

        def forward() -> Tensor:
            scaled = branch * scale if self.scaled else branch
            return tokens + (scaled * mask if self.dropped else scaled)

        return Trial(forward, (tokens, branch, scale))


@dataclass(frozen=True)
class Sequence:
    """What the decoder reads: seen tokens, then a mask token for each wanted one, all with their positions."""

    seen: int
    wanted: int
    width: int

    @property
    def cost(self) -> float:
        return 2.0 * (self.seen + self.wanted) * self.width

    def build(self, site: Site, clips: int) -> Trial:
        tokens = site.leaf(clips, self.seen, self.width, dtype=site.precision)
        mask_token = site.leaf(1, 1, self.width)
        places = torch.zeros(1, self.seen + self.wanted, self.width, device=site.device)
        seen, wanted = _index(self.seen, site, clips), _index(self.wanted, site, clips)

        def forward() -> Tensor:
            return torch.cat([tokens + take_rows(places, seen), mask_token + take_rows(places, wanted)], dim=1)

        return Trial(forward, (tokens, mask_token))


@dataclass(frozen=True)
class Patches:
    """Bytes of a clip to normalised cubes, those that are seen or all."""

    clip: ClipShape
    cube: Cube
    seen: int

    @property
    def cost(self) -> float:
        return 3.0 * self.seen * self.cube.frames * self.cube.height * self.cube.width

    def build(self, site: Site, clips: int) -> Trial:
        video, index = made_up_video(self.clip, site, clips), _index(self.seen, site, clips)
        normalise, is_all = Normalise().to(site.device), self.seen == self.clip.grid(self.cube).tokens

        def forward() -> Tensor:
            cubes = all_cubes(video, self.cube) if is_all else take_cubes(video, index, self.cube)
            normalised: Tensor = normalise(cubes)
            return normalised

        return Trial(forward, ())


@dataclass(frozen=True)
class Loss:
    """Targets of the wanted tokens, and the loss."""

    target: Target
    clip: ClipShape
    cube: Cube
    wanted: int

    @property
    def cost(self) -> float:
        return 4.0 * self.wanted * self.target.width(self.cube)

    def build(self, site: Site, clips: int) -> Trial:
        video, index = made_up_video(self.clip, site, clips), _index(self.wanted, site, clips)
        predictions = site.leaf(clips, self.wanted, self.target.width(self.cube), dtype=site.precision)
        weight = torch.ones(clips, self.wanted, device=site.device)

        def forward() -> Tensor:
            return self.target.loss(predictions, self.target.rows(video, index, self.cube), weight)

        return Trial(forward, (predictions,))


def tried_clips(kernel: Kernel, clips: int) -> int:
    """On how many of `clips` clips a kernel is tried: the rest would tell no more."""
    return max(1, min(clips, int(TRY_COST / max(kernel.cost, 1.0))))


def made_up_video(clip: ClipShape, site: Site, clips: int) -> Tensor:
    """Bytes of some clips, none of them drawn."""
    shape = (clips, 3, clip.frames, clip.size, clip.size)
    values = torch.arange(torch.Size(shape).numel(), device=site.device) % 251
    return values.to(torch.uint8).view(shape)


def _index(count: int, site: Site, clips: int) -> Tensor:
    return torch.arange(count, device=site.device).expand(clips, count).contiguous()
