"""Every form in which models go out, by the name that `tubelet weights export --to` takes.

A new one is a file with a function from a checkpoint and a folder to make to lines for the user, and a line in
`EXPORTS`. Nothing is imported before it is asked for: a table of commands must come up quickly.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tubelet.weights.checkpoint import Checkpoint

Export = Callable[["Checkpoint", Path], tuple[str, ...]]


def _huggingface(found: Checkpoint, out: Path) -> tuple[str, ...]:
    from tubelet.weights.export.huggingface import to_huggingface

    return to_huggingface(found, out)


def _onnx(found: Checkpoint, out: Path) -> tuple[str, ...]:
    from tubelet.weights.export.onnx import to_onnx

    done = to_onnx(found, out)
    return (*done.notes, f"outputs differ from torch's by {done.largest_difference:.1e} at most")


def _torch(found: Checkpoint, out: Path) -> tuple[str, ...]:
    from tubelet.weights.export.program import to_program

    return to_program(found, out)


EXPORTS: Final[dict[str, Export]] = {"huggingface": _huggingface, "onnx": _onnx, "torch": _torch}
"""Each writes the folder whole or not at all, and says in lines what changed. ValueError where it cannot."""
