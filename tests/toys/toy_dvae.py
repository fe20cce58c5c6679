"""A tiny tokenizer as DALL-E's authors save theirs: by their names, as tensors or as a pickled module."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tubelet.models.tokenizers.dvae import DvaeEncoder, DvaeSpec
from tubelet.rng import step_rng
from tubelet.weights.tensors.rename import rename


def toy_dvae(spec: DvaeSpec) -> DvaeEncoder:
    """With weights of a fixed seed."""
    with step_rng(5, 0):
        return DvaeEncoder(spec).eval()


def authors_names(encoder: DvaeEncoder) -> dict[str, Tensor]:
    """Its tensors as DALL-E's file names them."""
    plain = {name.replace("weight", "w").replace("bias", "b"): value for name, value in encoder.state_dict().items()}
    rules = (
        (r"stem\.(.)", r"blocks.input.\1"),
        (r"head\.(.)", r"blocks.output.conv.\1"),
        (r"groups\.(.)\.(.)\.skip\.(.)", r"blocks.group_\1.block_\2.id_path.\3"),
        (r"groups\.(.)\.(.)\.convs\.(.)\.(.)", r"blocks.group_\1.block_\2.res_path.conv_\3.\4"),
    )
    return rename(plain, rules)


def write_dvae(spec: DvaeSpec, path: Path) -> None:
    save_file(authors_names(toy_dvae(spec)), path)


def pickled_as_the_authors_do(encoder: DvaeEncoder, path: Path, patch: pytest.MonkeyPatch) -> None:
    """`torch.save` of a whole module whose classes are in a package `dall_e`, which is gone when this returns."""
    made = _classes()
    tree = made["Encoder"]()
    tree.register_module("blocks", nn.Sequential())
    for name, value in authors_names(encoder).items():
        *places, last = name.split(".")
        inner: nn.Module = tree
        for place in places:
            if place not in dict(inner.named_children()):
                kind = {"block": "EncoderBlock", "conv": "Conv2d", "id": "Conv2d", "input": "Conv2d"}
                build: Any = made.get(kind.get(place.split("_")[0], ""), nn.Sequential)
                inner.register_module(place, build())
            inner = dict(inner.named_children())[place]
        inner.register_parameter(last, nn.Parameter(value.clone(), requires_grad=False))
    for name, idle in (("relu", nn.ReLU()), ("pool", nn.MaxPool2d(2)), ("id_path", nn.Identity())):
        tree.get_submodule("blocks.group_1").register_module(name, idle)
    with patch.context() as there:
        for name in ("dall_e", "dall_e.encoder", "dall_e.utils"):
            package = ModuleType(name)
            for one in made.values():
                if one.__module__ == name:
                    setattr(package, one.__name__, one)
            there.setitem(sys.modules, name, package)
        torch.save(tree, path)


def _classes() -> dict[str, type[nn.Module]]:
    """Of the authors' package, by name; instances have attributes of their own beside tensors."""

    def init(self: nn.Module) -> None:
        nn.Module.__init__(self)
        object.__setattr__(self, "device", torch.device("cpu"))
        object.__setattr__(self, "vocab_size", 9)

    homes = {"Encoder": "dall_e.encoder", "EncoderBlock": "dall_e.encoder", "Conv2d": "dall_e.utils"}
    return {
        name: type(name, (nn.Module,), {"__init__": init, "__module__": home, "__qualname__": name})
        for name, home in homes.items()
    }
