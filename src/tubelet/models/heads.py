"""Attentive pooling: a learnt question to frozen tokens, and a linear classifier on its answer.

V-JEPA (arXiv:2404.08471, section 4 and appendix on evaluation) and CAE (arXiv:2202.03026, section 4.2): a mean of
tokens throws away where and when something happened; one cross-attention may choose among them and is still small.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from tubelet.nn.attention import attend
from tubelet.nn.block import NORM_EPS, Mlp
from tubelet.nn.init import truncated_normal_
from tubelet.spec import Spec


class AttentiveSpec(Spec):
    """Size of an `AttentiveClassifier`; `width` is that of the tokens."""

    kind: Literal["attentive"] = "attentive"
    width: int = Field(default=768, ge=1)
    heads: int = Field(default=12, ge=1)
    mlp_ratio: float = Field(default=4.0, gt=0.0)
    norm_eps: float = Field(default=NORM_EPS, gt=0.0)
    init_scale: float = Field(default=0.001, ge=0.0, description="factor on the head's first weights")

    def build(self, classes: int) -> AttentiveClassifier:
        """With fresh weights from torch's default generator. ValueError where the heads do not divide the width."""
        return AttentiveClassifier(self, classes)


class CrossAttention(nn.Module):
    """Multi-head attention of K questions to N tokens; all maps have a bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, query: Float[Tensor, "B K D"], tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B K D"]:
        k, v = self.kv(tokens).chunk(2, dim=-1)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (self.q(query), k, v))
        answer: Tensor = self.proj(attend(q, k, v).transpose(1, 2).flatten(2))
        return answer


class AttentiveClassifier(nn.Module):
    """`x = query + attention(query, norm1(tokens))`, then `x + mlp(norm2(x))`, then a linear head.

    How many tokens there are does not matter, nor their order: positions are in the tokens already.
    Names: `query`, `norm1`, `attention`, `norm2`, `mlp`, `head`.
    """

    def __init__(self, spec: AttentiveSpec, classes: int) -> None:
        super().__init__()
        if spec.width % spec.heads:
            raise ValueError(f"width {spec.width} is not a multiple of heads {spec.heads}")
        self.spec, self.classes = spec, classes
        self.query = nn.Parameter(torch.empty(spec.width))  # a vector, so that weight decay leaves it alone
        nn.init.trunc_normal_(self.query, std=0.02)
        self.norm1 = nn.LayerNorm(spec.width, eps=spec.norm_eps)
        self.attention = CrossAttention(spec.width, spec.heads)
        self.norm2 = nn.LayerNorm(spec.width, eps=spec.norm_eps)
        self.mlp = Mlp(spec.width, int(spec.width * spec.mlp_ratio))
        self.apply(truncated_normal_)
        self.head = linear_head(spec.width, classes, init_scale=spec.init_scale)

    def forward(self, tokens: Float[Tensor, "B N {self.spec.width}"]) -> Float[Tensor, "B {self.classes}"]:
        """Logits."""
        logits: Tensor = self.head(self.pool(tokens))
        return logits

    def pool(self, tokens: Float[Tensor, "B N {self.spec.width}"]) -> Float[Tensor, "B {self.spec.width}"]:
        """One vector per clip: what the head reads."""
        query = self.query.expand(len(tokens), 1, -1)
        pooled: Tensor = query + self.attention(query, self.norm1(tokens))
        pooled = pooled + self.mlp(self.norm2(pooled))
        return pooled[:, 0]


def linear_head(width: int, classes: int, *, init_scale: float) -> nn.Linear:
    """Linear classifier; weight and bias are multiplied by `init_scale`, so the first predictions are near even.

    (V1 `modeling_finetune.py`, init_scale 0.001.)
    """
    head = nn.Linear(width, classes)
    truncated_normal_(head)
    head.weight.data.mul_(init_scale)
    head.bias.data.mul_(init_scale)
    return head
