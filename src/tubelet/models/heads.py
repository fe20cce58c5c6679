"""Heads on top of an encoder."""

from __future__ import annotations

from torch import nn

from tubelet.nn.init import truncated_normal_


def linear_head(width: int, classes: int, *, init_scale: float) -> nn.Linear:
    """Linear classifier; weight and bias are multiplied by `init_scale`, so the first predictions are near even.

    (V1 `modeling_finetune.py`, init_scale 0.001.)
    """
    head = nn.Linear(width, classes)
    truncated_normal_(head)
    head.weight.data.mul_(init_scale)
    head.bias.data.mul_(init_scale)
    return head
