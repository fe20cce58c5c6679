"""A network that is asked, and not trained."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Num
from torch import Tensor, nn


class Frozen:
    """A network that is asked, and never trained, saved or copied.

    It is no module, so that a method that holds it has neither its parameters nor its tensors: optimiser, checkpoints,
    averages, DDP and `fully_shard` pass it by, and each process holds it whole. It goes where the clips are.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network.eval().requires_grad_(False)
        self._device: torch.device | None = None

    @torch.no_grad()
    def ask(self, video: Num[Tensor, "B C T H W"]) -> Tensor:
        """What the network says of these clips, on their device."""
        if self._device != video.device:
            self.network.to(video.device)
            self._device = video.device
        answer: Tensor = self.network(video)
        return answer

    def __deepcopy__(self, memo: dict[int, Any]) -> Frozen:
        """Copies of a method (an average, a shard) ask the same network."""
        return self
