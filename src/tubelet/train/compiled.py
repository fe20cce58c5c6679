"""`torch.compile`, block by block: one compilation serves all blocks of a size, and names of weights stay as they are.

Random draws stay outside of what is compiled: they are those of a run that is not compiled, and one compilation serves
blocks with any rate of drop path.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from tubelet.models.encoders import BLOCKS
from tubelet.recipe import Run


def compiles(run: Run, device: torch.device) -> bool:
    """Whether this run compiles; "auto" does on a GPU, where Triton is there. On CPUs it was slower (docs/log.md)."""
    if run.compile == "auto":
        return device.type == "cuda" and importlib.util.find_spec("triton") is not None
    return run.compile == "blocks"


def compile_blocks(module: nn.Module, run: Run, device: torch.device) -> None:
    """Have the blocks compiled when they are first called, where the run says so; in place."""
    if not compiles(run, device):
        return
    for block in [one for one in module.modules() if isinstance(one, BLOCKS)]:
        block.drop_path.draw = torch.compiler.disable(block.drop_path.draw)  # type: ignore[method-assign]
        block.compile()


@contextmanager
def plain_compile_errors(run: Run, device: torch.device) -> Iterator[None]:
    """Inside, a compiler that is missing or fails gives a ValueError that says what to do."""
    if not compiles(run, device):
        yield
        return
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import InductorError

    try:
        yield
    except (TorchDynamoException, InductorError) as error:
        why = " ".join(str(error).split())[:200]
        raise ValueError(
            f"torch.compile failed on {device} ({why}); set run.compile=never, or mend the compiler"
        ) from error
