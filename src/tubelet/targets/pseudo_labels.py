"""Pseudo-labels as targets: each hidden token is to say what a frozen classifier says of the whole clip."""

from __future__ import annotations

from typing import ClassVar, Literal

from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from tubelet.targets.base import Asks, weighted_mean
from tubelet.targets.frozen import FrozenSpec


class PseudoLabels(FrozenSpec):
    """The probabilities of a frozen classifier for the clip, by cross entropy (after arXiv:2112.09133, section 3.2).

    One distribution for all tokens of a clip: the paper's classifier gives one for each.
    """

    asks: ClassVar[Asks] = "classes"
    kind: Literal["pseudo_labels"] = "pseudo_labels"
    temperature: float = Field(default=1.0, gt=0, description="the classifier's logits are divided by it")

    def select(self, answer: Float[Tensor, "B classes"], wanted: Int[Tensor, "B K"]) -> Float[Tensor, "B K classes"]:
        """The same probabilities for each wanted token, from logits; float32, a view."""
        share = (answer.float() / self.temperature).softmax(1)
        return share.unsqueeze(1).expand(-1, wanted.shape[1], -1)

    def loss(
        self,
        prediction: Float[Tensor, "B K classes"],
        target: Float[Tensor, "B K classes"],
        weight: Float[Tensor, "B K"],
    ) -> Float[Tensor, ""]:
        """Cross entropy with the probabilities, in nats; mean over tokens by weight."""
        return weighted_mean(-(target * F.log_softmax(prediction.float(), dim=-1)).sum(-1), weight)
