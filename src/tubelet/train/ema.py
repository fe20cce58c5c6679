"""A running average of the weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class Ema:
    """`average` follows a module: decay * average + (1 - decay) * weights after each step; buffers are copied."""

    def __init__(self, module: nn.Module, *, decay: float) -> None:
        self.decay = decay
        self.average = copy.deepcopy(module).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take in the weights after a step."""
        average: list[Tensor] = list(self.average.parameters())
        latest = [value.detach() for value in module.parameters()]
        torch._foreach_lerp_(average, latest, 1 - self.decay)
        for kept, value in zip(self.average.buffers(), module.buffers(), strict=True):
            kept.copy_(value)
