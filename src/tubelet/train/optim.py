"""AdamW with parameter groups: what is not decayed, and smaller rates for lower layers."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from tubelet.models.decoder import Decoder
from tubelet.models.encoders import Encoder
from tubelet.recipe import Optim
from tubelet.train.distributed.shard import full_tensor, shard_like

VECTORS: Final = (".bias", ".scale")
"""Ends of names that are never decayed, whatever their shape: biases, and temperatures of attention."""


@dataclass(frozen=True)
class ParameterGroup:
    """Names of parameters that share a weight decay and a factor on the rate. `layer` is None without layer decay.

    Names alone: what ranks share takes the place of the parameters that a method was built with.
    """

    names: tuple[str, ...]
    weight_decay: float
    lr_scale: float = 1.0
    layer: int | None = None


def parameter_groups(
    method: nn.Module, *, weight_decay: float, layer_decay: float | None = None, encoder: Encoder | None = None
) -> tuple[ParameterGroup, ...]:
    """Groups of the trained parameters of a method (VideoMAE, arXiv:2203.12602, section 4 and appendix).

    Weight decay leaves vectors and biases alone, and what `encoder`, a part of the method, says; without it, as in
    pre-training, tables and tokens of an encoder are decayed. With `layer_decay` the factor on the rate is
    `layer_decay ** (encoder.layers - layer)`; what is not of the encoder is in its highest layer.

    # authors: names are compared whole, so the position table of a pre-training encoder is decayed.
    """
    assert layer_decay is None or encoder is not None, "the encoder says in which layer a parameter is"
    spared = _not_decayed(method, encoder)
    layers = _layers(method, encoder)
    top = 0 if encoder is None else encoder.layers
    members: dict[tuple[int | None, float], list[str]] = {}
    for name, value in method.named_parameters():
        if not value.requires_grad:
            continue
        layer = None if layer_decay is None else layers.get(name, top)
        is_decayed = value.ndim > 1 and not name.endswith(VECTORS) and name not in spared
        members.setdefault((layer, weight_decay if is_decayed else 0.0), []).append(name)
    return tuple(
        ParameterGroup(
            names=tuple(names),
            weight_decay=decay,
            lr_scale=1.0 if layer_decay is None or layer is None else layer_decay ** (top - layer),
            layer=layer,
        )
        for (layer, decay), names in members.items()
    )


def _not_decayed(method: nn.Module, encoder: Encoder | None) -> set[str]:
    """Names in the method of what this encoder, and any decoder, want left alone."""
    spared = set()
    for place, part in method.named_modules():
        if isinstance(part, Decoder) or (isinstance(part, Encoder) and part is encoder):
            spared |= {_joined(place, name) for name in part.not_decayed()}
    return spared


def _layers(method: nn.Module, encoder: Encoder | None) -> dict[str, int]:
    """The layer of each parameter of the encoder, by its name in the method."""
    if encoder is None:
        return {}
    place = next(place for place, part in method.named_modules() if part is encoder)
    return {_joined(place, name): encoder.layer_of(name) for name, _ in encoder.named_parameters()}


def _joined(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


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
