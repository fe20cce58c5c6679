"""Tokens as targets: which entry of a frozen tokenizer's vocabulary stands for the hidden part."""

from __future__ import annotations

from typing import ClassVar, Literal

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from tubelet.targets.base import Asks, weighted_mean
from tubelet.targets.frozen import FrozenSpec, of_tokens


class Tokens(FrozenSpec):
    """Ids that a frozen tokenizer gives the first frame of each tubelet, by cross entropy (arXiv:2112.09133).

    The tokenizer is the encoder of DALL-E's discrete VAE (arXiv:2102.12092), as in BEiT and BEVT (arXiv:2112.01529).
    """

    asks: ClassVar[Asks] = "ids"
    has_ids: ClassVar[bool] = True
    kind: Literal["tokens"] = "tokens"

    def select(self, answer: Int[Tensor, "B N"], wanted: Int[Tensor, "B K"]) -> Int[Tensor, "B K"]:
        """Ids of the wanted tokens from those of all."""
        return of_tokens(answer, wanted)

    def loss(
        self, prediction: Float[Tensor, "B K vocabulary"], target: Int[Tensor, "B K"], weight: Float[Tensor, "B K"]
    ) -> Float[Tensor, ""]:
        """Cross entropy over the vocabulary, in nats; mean over tokens by weight."""
        return weighted_mean(F.cross_entropy(prediction.float().mT, target, reduction="none"), weight)
