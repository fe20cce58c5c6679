"""Quick gradients on a CPU (autograd functions), each behind one plain function: attention in bf16, and pooling.

PyTorch's bf16 attention for CPUs runs forward at the speed of matrix products, but its gradient at a fifth of that.
Here the forward is that kernel, and the gradient is computed again from the products, a few heads at a time so that
their weights stay in the cache (the recomputation of arXiv:2205.14135, section 3.1, with whole heads as blocks).

The gradient of a depthwise convolution for its input is the convolution of the output's gradient, its rows spread by
the stride, with the kernel turned round; PyTorch's CPU kernels for it are up to twenty times as slow as for the
convolution itself.
"""

from __future__ import annotations

import math
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

BLOCK_WEIGHTS: Final = 5_000_000
"""Attention weights held at once, 10 MB in bf16: 2 heads of 1,568 tokens. More leave the cache, fewer cost calls."""
PARTS: Final = 3
"""bf16 numbers whose sum carries a float32."""
TILE: Final = 32
"""Columns in which AMX multiplies bf16; shorter rows are padded to it anyway."""

Step = tuple[int, int, int]


def blocked_attention(
    q: Float[Tensor, "B heads K d"], k: Float[Tensor, "B heads N d"], v: Float[Tensor, "B heads N d"]
) -> Float[Tensor, "B heads K d"]:
    """softmax(q k' / sqrt(d)) v of bf16 tensors on a CPU, with a quicker gradient than PyTorch's own."""
    mixed: Tensor = _Blocked.apply(q, k, v)  # type: ignore[no-untyped-call]
    return mixed


class _Blocked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mixed, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)
        ctx.save_for_backward(q, k, v, mixed, log_sum)
        return mixed  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Two extra columns do two subtractions inside the products, before they are rounded to bf16.

        Weights are exp(q k' - log_sum + log N), so they are near 1 and small numbers are rounded little; 1/N comes
        back at the end.
        """
        q, k, v, mixed, log_sum = ctx.saved_tensors
        (gradient,) = gradients
        heads, keys, width = q.shape[1], k.shape[2], q.shape[3]
        log_sum = log_sum if log_sum.shape[1] == heads else log_sum.transpose(1, 2)
        taken = (gradient.float() * mixed.float()).sum(-1)
        scaled = q * width**-0.5
        asks, gains = _with_columns(scaled, math.log(keys) - log_sum), _with_columns(gradient, -taken)
        ones = torch.ones(()).expand(k.shape[:3])
        known, given = _with_columns(k, ones), _with_columns(v, ones)
        to_q, to_k, to_v = (torch.empty_like(x[..., :width]) for x in (asks, known, given))
        count = max(1, BLOCK_WEIGHTS // (keys * q.shape[2]))
        weights = torch.empty(min(count, len(asks)), keys, q.shape[2], dtype=q.dtype)
        slopes = torch.empty_like(weights)
        for first in range(0, len(asks), count):
            rows = slice(first, min(first + count, len(asks)))
            p, s = weights[: rows.stop - first], slopes[: rows.stop - first]
            torch.bmm(known[rows], asks[rows].mT, out=p).exp_()
            torch.bmm(given[rows], gains[rows].mT, out=s).mul_(p)
            torch.bmm(p, gains[rows, :, :width], out=to_v[rows])
            torch.bmm(s, asks[rows, :, :width], out=to_k[rows])
            torch.bmm(s.mT, known[rows, :, :width], out=to_q[rows])
        to_q.mul_(width**-0.5 / keys)
        return to_q.view(q.shape), to_k.mul_(1 / keys).view(k.shape), to_v.mul_(1 / keys).view(v.shape)


def _with_columns(rows: Float[Tensor, "B heads n d"], value: Float[Tensor, "B heads n"]) -> Float[Tensor, "G n w"]:
    """Rows with a float32 value behind them, as bf16 numbers that sum up to it, padded to whole tiles."""
    width = rows.shape[-1]
    wide = rows.new_zeros(*rows.shape[:3], -(-(width + PARTS) // TILE) * TILE)
    wide[..., :width] = rows
    rest = value
    for column in range(width, width + PARTS):
        wide[..., column] = rest
        rest = rest - wide[..., column].float()
    return wide.flatten(0, 1)


def depthwise(
    video: Float[Tensor, "B C t h w"], weight: Float[Tensor, "C 1 a b c"], stride: Step
) -> Float[Tensor, "B C p q r"]:
    """Each channel by its own kernel, padded by half of it; float32. A kernel has odd sides to be quick."""
    kernel = weight.shape[2:]
    padding = [side // 2 for side in kernel]
    if all(side % 2 for side in kernel) and torch.is_grad_enabled() and video.device.type == "cpu":
        found: Tensor = _Depthwise.apply(video, weight, stride)  # type: ignore[no-untyped-call]
        return found
    return F.conv3d(video, weight, None, stride, padding, 1, len(weight))


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, video: Tensor, weight: Tensor, stride: Step) -> Tensor:
        ctx.save_for_backward(video, weight)
        ctx.stride = stride
        return F.conv3d(video, weight, None, stride, _half(weight), 1, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        video, weight = ctx.saved_tensors
        (gradient,) = gradients
        channels, padding = len(weight), _half(weight)
        to_video = to_weight = None
        if ctx.needs_input_grad[0]:
            t, h, w = ctx.stride
            rows = gradient
            if (t, h, w) != (1, 1, 1):
                rows = torch.zeros_like(video, memory_format=torch.channels_last_3d)
                rows[:, :, ::t, ::h, ::w] = gradient
            to_video = F.conv3d(rows, weight.flip(2, 3, 4), None, 1, padding, 1, channels)
        if ctx.needs_input_grad[1]:
            _, to_weight, _ = torch.ops.aten.convolution_backward(
                gradient, video, weight, None, ctx.stride, padding, (1, 1, 1), False, (0, 0, 0), channels,
                (False, True, False),
            )  # fmt: skip
        return to_video, to_weight, None


def _half(weight: Tensor) -> list[int]:
    return [side // 2 for side in weight.shape[2:]]
