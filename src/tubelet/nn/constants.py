"""Numbers of a module that follow from its size: buffers that no checkpoint holds.

A module that is built on the meta device has none of its numbers. Weights come from rank 0 or from a checkpoint, and
constants are computed again.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@runtime_checkable
class HasConstants(Protocol):
    """A module with such buffers; `constants` works once its size is known, before they are registered."""

    def constants(self) -> dict[str, Tensor]:
        """The buffers by their names in the module, computed anew on torch's default device."""


def register_constants(module: nn.Module) -> None:
    """Keep the constants of a module as buffers: `.to()` moves them, checkpoints do not hold them."""
    assert isinstance(module, HasConstants)
    for name, value in module.constants().items():
        module.register_buffer(name, value, persistent=False)


@torch.no_grad()
def restore_constants(root: nn.Module) -> None:
    """Write the constants of all modules within `root` into their buffers, whatever those hold; they keep their device.

    A buffer that no checkpoint holds and no module computes would stay undefined: that is an error of ours.
    """
    known = {name for name, _ in root.named_parameters()} | root.state_dict().keys()
    for place, module in root.named_modules():
        if isinstance(module, HasConstants):
            for own, value in module.constants().items():
                name = f"{place}.{own}".removeprefix(".")
                root.get_buffer(name).copy_(value)
                known.add(name)
    unknown = [name for name, _ in root.named_buffers() if name not in known]
    assert not unknown, f"buffers that neither a checkpoint nor `constants` gives: {', '.join(unknown)}"
