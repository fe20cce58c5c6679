"""Floating-point operations of training on one clip, as `FlopCounterMode` counts them in a step without numbers.

A matrix product of `rows` vectors with a matrix [inputs, outputs] takes `2 * rows * inputs * outputs`: a multiplication
and an addition for each. Attention takes its two products, `4 * rows * tokens * width`, whatever a kernel computes
again. Nothing else is counted: norms, GELU, softmax, loss, optimiser (some 15 for each parameter and step) and the
average of weights are below a hundredth of the products.

Backward is twice the forward: a product for the gradient of the input, one for that of the matrix. A patch embedding
needs only the second, for nothing before it learns. With `checkpointing` blocks run forward again, up to the last
linear map: what that gives is not needed but for layer scale and drop path. docs/planning.md has the formulas.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tubelet.plan.count.step import META, PlannedStep
from tubelet.plan.count.trace import BACKWARD, FORWARD, trace_step


@dataclass(frozen=True)
class CountedPart:
    """FLOPs of one part for one clip."""

    name: str
    forward: int
    backward: int
    recomputed: int = 0


@dataclass(frozen=True)
class Flops:
    """FLOPs of one clip."""

    parts: tuple[CountedPart, ...]

    @property
    def forward(self) -> int:
        """One pass."""
        return sum(part.forward for part in self.parts)

    @property
    def training(self) -> int:
        """Forward and backward: what MFU counts (arXiv:2204.02311, appendix B), whatever is computed twice."""
        return self.forward + sum(part.backward for part in self.parts)

    @property
    def executed(self) -> int:
        """`training`, and what checkpointing computes again."""
        return self.training + sum(part.recomputed for part in self.parts)


def count_flops(step: PlannedStep, *, precision: torch.dtype = torch.float32) -> Flops:
    """FLOPs of training on one clip, part by part; they are the same in every precision."""
    plain = trace_step(step.recomputing(encoder=False, decoder=False), device=META, precision=precision)
    again = trace_step(step, device=META, precision=precision) if step.recomputes() else plain
    names = dict.fromkeys(name for phase, name in plain.flops if phase == FORWARD)
    parts = (
        CountedPart(
            name.removesuffix(" and loss"),
            plain.flops[FORWARD, name],
            plain.flops.get((BACKWARD, name), 0),
            again.flops.get((BACKWARD, name), 0) - plain.flops.get((BACKWARD, name), 0),
        )
        for name in names
    )
    return Flops(tuple(part for part in parts if part.forward))
