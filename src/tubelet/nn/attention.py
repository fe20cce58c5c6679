"""Joint space-time self-attention."""

from __future__ import annotations

import math
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from tubelet.nn.cpu import blocked_attention

CPU_FLOAT32_TOKENS: Final = 128
CPU_PLAIN_TOKENS: Final = 320
FIRST_TEMPERATURE: Final = math.log(10.0)
LARGEST_TEMPERATURE: Final = 4.6052  # log of 100, rounded as the authors round it


class Attention(nn.Module):
    """Multi-head self-attention over all tokens; q and v have a bias, k has none (V1 `modeling_finetune.py`).

    A bias of k would shift all logits of a query alike, so it has no effect and is neither stored nor learnt.
    With `cosine`, logits are cosines times a learnt factor per head, at most 100 (VideoMAE V2 `CosAttention`).
    """

    def __init__(self, width: int, heads: int, *, cosine: bool = False) -> None:
        super().__init__()
        self.width, self.heads = width, heads
        self.scale = nn.Parameter(torch.full((heads, 1, 1), FIRST_TEMPERATURE)) if cosine else None
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        q, k, v = F.linear(tokens, self.qkv.weight, bias).chunk(3, dim=-1)
        return self._attend(q, k, v)

    def tail(self, tokens: Float[Tensor, "B N D"], count: int) -> Float[Tensor, "B K D"]:
        """The last `count` rows of `forward`: all tokens are read, only these ask."""
        width = tokens.shape[-1]
        weight_q, weight_kv = self.qkv.weight.split([width, 2 * width])
        bias_kv = torch.cat([torch.zeros_like(self.v_bias), self.v_bias])
        q = F.linear(tokens[:, tokens.shape[1] - count :], weight_q, self.q_bias)
        k, v = F.linear(tokens, weight_kv, bias_kv).chunk(2, dim=-1)
        return self._attend(q, k, v)

    def _attend(
        self, q: Float[Tensor, "B K D"], k: Float[Tensor, "B N D"], v: Float[Tensor, "B N D"]
    ) -> Float[Tensor, "B K D"]:
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))
        if self.scale is not None:
            factor = self.scale.clamp(max=LARGEST_TEMPERATURE).exp() * math.sqrt(q.shape[-1])  # undoes the kernel's own
            q, k = (F.normalize(q, dim=-1) * factor).to(v.dtype), F.normalize(k, dim=-1).to(v.dtype)
        mixed = attend(q, k, v).transpose(1, 2).flatten(2)
        projected: Tensor = self.proj(mixed)
        return projected


def attend(
    q: Float[Tensor, "B heads K d"],
    k: Float[Tensor, "B heads N d"],
    v: Float[Tensor, "B heads N d"],
    *,
    bias: Float[Tensor, "#B heads K N"] | None = None,
) -> Float[Tensor, "B heads K d"]:
    """Softmax attention: the one place that chooses a kernel for it, by what was measured (docs/log.md).

    `bias`, in the dtype of the others, is added to the logits.

    On a CPU the gradient of PyTorch's bf16 kernel is slow, by a fixed cost per head and by its products. So up to
    `CPU_FLOAT32_TOKENS` tokens are computed in float32, up to `CPU_PLAIN_TOKENS` with the weights held in memory, and
    more by `blocked_attention`. Everywhere else, and where no gradient is asked for, PyTorch chooses.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        with torch.autocast("cpu", enabled=False):
            return _attend_in_bf16(q, k, v) if bias is None else _attend_in_bf16_with(q, k, v, bias)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def _attend_in_bf16(
    q: Float[Tensor, "B heads K d"], k: Float[Tensor, "B heads N d"], v: Float[Tensor, "B heads N d"]
) -> Float[Tensor, "B heads K d"]:
    if k.shape[2] <= CPU_FLOAT32_TOKENS:
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float()).to(q.dtype)
    if not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(q, k, v)
    return _plain(q, k, v) if k.shape[2] <= CPU_PLAIN_TOKENS else blocked_attention(q, k, v)


def _attend_in_bf16_with(
    q: Float[Tensor, "B heads K d"],
    k: Float[Tensor, "B heads N d"],
    v: Float[Tensor, "B heads N d"],
    bias: Float[Tensor, "#B heads K N"],
) -> Float[Tensor, "B heads K d"]:
    """PyTorch's kernel has no gradient for the bias, so the weights are held in memory where one is asked for."""
    if not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    weights = torch.add((q * q.shape[-1] ** -0.5) @ k.mT, bias)
    mixed: Tensor = weights.softmax(-1) @ v
    return mixed


def _plain(
    q: Float[Tensor, "B heads K d"], k: Float[Tensor, "B heads N d"], v: Float[Tensor, "B heads N d"]
) -> Float[Tensor, "B heads K d"]:
    weights = (q * q.shape[-1] ** -0.5) @ k.mT
    mixed: Tensor = weights.softmax(-1) @ v
    return mixed
