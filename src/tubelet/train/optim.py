"""AdamW with parameter groups: what is not decayed, and smaller rates for lower layers."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from tubelet.recipe import Optim
from tubelet.train.distributed.shard import full_tensor, shard_like

NEVER_DECAYED: Final = frozenset({"pos_embed", "cls_token", "mask_token", "decoder.mask_token"})
BOTTOM: Final = ("patch_embed", "pos_embed", "cls_token", "class_token", "mask_token")
_BLOCK: Final = re.compile(r"blocks\.(\d+)\.")


@dataclass(frozen=True)
class ParameterGroup:
    """Names of parameters that share a weight decay and a factor on the rate. `layer` is None without layer decay.

    Names alone: what ranks share takes the place of the parameters that a method was built with.
    """

    names: tuple[str, ...]
    weight_decay: float
    lr_scale: float = 1.0
    layer: int | None = None


def is_decayed(name: str, shape: torch.Size) -> bool:
    """Whether weight decay applies: not to vectors, biases, temperatures, position tables and special tokens.

    Names are compared whole, as the authors do, so the position table of a pre-training encoder is decayed.
    """
    return len(shape) > 1 and not name.endswith((".bias", ".scale")) and name not in NEVER_DECAYED


def layer_of(name: str, depth: int) -> int:
    """Layer for layer decay: 0 embeds, i + 1 is block i, depth + 1 all that follows the blocks."""
    if name.startswith(BOTTOM):
        return 0
    block = _BLOCK.match(name)
    return depth + 1 if block is None else int(block.group(1)) + 1


def depth_of(names: Iterable[str]) -> int:
    """How many blocks these names of an encoder speak of."""
    return 1 + max((int(block.group(1)) for name in names if (block := _BLOCK.match(name))), default=-1)


def parameter_groups(
    named: Mapping[str, nn.Parameter], *, weight_decay: float, layer_decay: float | None = None, prefix: str = ""
) -> tuple[ParameterGroup, ...]:
    """Groups of the trained parameters (VideoMAE, arXiv:2203.12602, section 4 and appendix).

    With `layer_decay` the factor on the rate is `layer_decay ** (depth + 1 - layer)`, depth counted from the names.
    `prefix` is taken off the front of names before they are judged ("encoder." for a classifier, whose encoder
    stands bare in the authors' names).
    """
    trained = {name: value for name, value in named.items() if value.requires_grad}
    bare = {name: name.removeprefix(prefix) for name in trained}
    depth = depth_of(bare.values())
    members: dict[tuple[int | None, float], list[str]] = {}
    for name, value in trained.items():
        layer = None if layer_decay is None else layer_of(bare[name], depth)
        decay = weight_decay if is_decayed(bare[name], value.shape) else 0.0
        members.setdefault((layer, decay), []).append(name)
    return tuple(
        ParameterGroup(
            names=tuple(names),
            weight_decay=decay,
            lr_scale=1.0 if layer_decay is None or layer is None else layer_decay ** (depth + 1 - layer),
            layer=layer,
        )
        for (layer, decay), names in members.items()
    )


class Optimizer:
    """AdamW over parameter groups, its state by the names of the parameters."""

    def __init__(self, groups: Iterable[ParameterGroup], parameters: Mapping[str, nn.Parameter], optim: Optim) -> None:
        """`parameters` has those that the groups name, and may have others."""
        self.groups = tuple(groups)
        self.named = {name: parameters[name] for group in self.groups for name in group.names}
        self._adamw = torch.optim.AdamW(
            [
                {"params": [self.named[name] for name in group.names], "weight_decay": group.weight_decay}
                for group in self.groups
            ],
            lr=optim.lr,
            betas=optim.betas,
            eps=optim.eps,
            fused=True,
        )

    def step(self, learning_rate: float) -> None:
        """Update with this rate times the factor of each group, then drop the gradients."""
        for group, settings in zip(self.groups, self._adamw.param_groups, strict=True):
            settings["lr"] = learning_rate * group.lr_scale
        self._adamw.step()
        self.drop_gradients()

    def drop_gradients(self) -> None:
        """Forget gradients, after a step or instead of one."""
        self._adamw.zero_grad(set_to_none=True)

    def clip_gradients(self, limit: float | None) -> Tensor:
        """Global L2 norm of the gradients, on their device and before they are scaled down to `limit`."""
        gradients = [value.grad for value in self.named.values() if value.grad is not None]
        norm = full_tensor(torch.nn.utils.get_total_norm(gradients))
        if limit is not None:
            torch.nn.utils.clip_grads_with_norm_(self.named.values(), limit, norm)
        return norm

    def state(self) -> dict[str, Tensor]:
        """`<quantity>/<parameter name>` -> tensor; nothing for parameters that never had a gradient."""
        held = self._adamw.state
        return {f"{key}/{n}": value for n, p in self.named.items() if p in held for key, value in held[p].items()}

    def empty_state(self, entry: str, shape: torch.Size) -> Tensor:
        """Room for an entry of a state, spread over ranks as its parameter is."""
        parameter = self.named[entry.split("/", 1)[1]]
        return torch.zeros_like(parameter.detach()) if parameter.shape == shape else torch.zeros(shape)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take a state that `state` gave; shapes were checked with those of the weights."""
        for entry, value in state.items():
            key, name = entry.split("/", 1)
            parameter = self.named[name]
            self._adamw.state[parameter][key] = shard_like(value, parameter).to(parameter.device, copy=True)


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
