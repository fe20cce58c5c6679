"""Where the numbers of a new method are: in this process, or, for what ranks share, in rank 0 alone or in a checkpoint.

A shell is a module on the meta device: shapes and names, and not one number.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import NoReturn

import torch
from torch import Tensor, nn

from tubelet.methods.masked import MaskedMethod
from tubelet.recipe import PretrainRecipe, Run, StreamRecipe, streams_of
from tubelet.rng import step_rng
from tubelet.targets.frozen import FrozenSpec
from tubelet.targets.unions import Target
from tubelet.train.distributed.process_group import is_main, place
from tubelet.weights.teachers import live_target


def spreads(run: Run) -> bool:
    """Whether each process of this run holds some rows of the weights only."""
    return place().world > 1 and run.parallel == "fsdp"


@contextmanager
def building(run: Run, *, goes_on: bool) -> Iterator[None]:
    """Inside, a method is built as this process needs it.

    Where ranks share its weights, rank 0 alone has the first ones, whole on the host, and all others build a shell;
    where the run goes on from a checkpoint, rank 0 does so too.
    """
    is_shell = spreads(run) and (goes_on or not is_main())
    with torch.device("meta") if is_shell else nullcontext():
        yield


def has_weights(module: nn.Module) -> bool:
    """Whether it is no shell."""
    return not any(value.is_meta for value in module.parameters())


def pattern(module: nn.Module, run: Run) -> nn.Module:
    """What an average of its weights is copied from: itself, or a shell where ranks share the average too."""
    return shell_of(module) if spreads(run) else module


def shell_of(module: nn.Module) -> nn.Module:
    """A copy without numbers in its parameters; the other is left alone, and no number is copied."""
    shells = {id(value): _shell(value) for value in module.parameters()}
    return copy.deepcopy(module, dict(shells))


def to_meta(module: nn.Module) -> dict[str, Tensor]:
    """Make a module a shell, in place; gives the tensors of its state that it had: none of a shell."""
    had = {name: value for name, value in module.state_dict().items() if not value.is_meta}
    for part in module.modules():
        for name, value in list(part.named_parameters(recurse=False)):
            setattr(part, name, _shell(value))
    return had


def _shell(value: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(torch.empty_like(value, device="meta"), requires_grad=value.requires_grad)


def build_method(recipe: PretrainRecipe) -> MaskedMethod:
    """The method with the first weights of the recipe's seed, its target ready to be asked, and its decode rule."""
    target = live_target(recipe)
    with step_rng(recipe.seed, 0):
        method = recipe.model.build(recipe.clip, target)
    method.decode = recipe.decode
    for stream in streams_of(recipe)[1:]:
        method.add_stream(stream.name, stream.clip, _target_of(stream, recipe, target), stream.decode)
    return method


def _target_of(stream: StreamRecipe, recipe: PretrainRecipe, target: Target) -> Target:
    """The target of a further stream; `target` is that of the recipe, whose network both may ask."""
    if stream.target == recipe.target:
        return target

    def refuse(spec: FrozenSpec) -> NoReturn:
        raise ValueError(
            f"streams.{stream.name}.target {spec.kind} asks a network of its own, which only the target of "
            "the stream video may: leave it out, or choose pixels or hog"
        )

    return stream.target.ready(refuse, recipe.model.encoder.cube)
