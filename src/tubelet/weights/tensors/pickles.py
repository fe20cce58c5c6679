"""PyTorch pickles, read without running them; and one line for whatever else ends in `.pth`.

A pickle is a program: it can name any function and call it. `weights_only` of `torch.load` is an interpreter that knows
tensors and plain data and stops at every other name; here such a stop becomes a refusal that says which name it was.
"""

from __future__ import annotations

import argparse
import pickle
import re
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

_NUMBERS: Final = (
    *(np.bool_, np.int8, np.int16, np.int32, np.int64),
    *(np.uint8, np.uint16, np.uint32, np.uint64, np.float16, np.float32, np.float64),
)
_SCALAR: Final = np.float64(0).__reduce__()[0]  # what NumPy pickles a number as; it copies bytes
ALLOWED: Final[list[Any]] = [
    argparse.Namespace,
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    (np.dtype, "numpy.dtype"),
    *(type(np.dtype(number)) for number in _NUMBERS),
]
"""Beyond what `weights_only` knows: options of a script (a bag of plain values), and NumPy's numbers (an accuracy, a
loss), which scripts save beside the weights. None of them calls anything that the file chooses."""
_GLOBAL: Final = re.compile(r"GLOBAL (\S+)")
PICKLE_STARTS: Final = (b"PK", b"\x80")
"""First bytes of a checkpoint in the zip format, and of one before PyTorch 1.6."""
_DAMAGE: Final = (
    *(RuntimeError, EOFError, OSError, ValueError, TypeError, LookupError, AttributeError),
    *(ArithmeticError, AssertionError, MemoryError, ImportError, struct.error, zipfile.BadZipFile),
)
"""What the interpreter of `weights_only` raises at damaged bytes: whatever its own code meets first."""
_TEXT: Final = 512
_LFS: Final = "version https://git-lfs"


class PickledModule:
    """Stands for a module in a pickle: its class is not imported, only what it held is kept."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.held = state

    def tensors(self) -> dict[str, Any]:
        """Parameters and buffers by the names that `state_dict` would give them."""
        held: dict[str, Any] = getattr(self, "held", {})
        own = {**held.get("_parameters", {}), **held.get("_buffers", {})}
        found = {name: value for name, value in own.items() if value is not None}
        for place, module in held.get("_modules", {}).items():
            if isinstance(module, PickledModule):
                found |= {f"{place}.{name}": value for name, value in module.tensors().items()}
        return found


def load_pickle(path: Path, *, modules: Sequence[str] = ()) -> Any:
    """The content of a PyTorch checkpoint, zip or legacy, on the CPU.

    `modules` names classes of modules that may be in it: a `PickledModule` stands for each, and of the outermost its
    tensors are the content.
    ValueError in one line where it is cut short, holds more than tensors and plain data, or wants to run code: then
    nothing was run.
    """
    try:
        allowed = [*ALLOWED, *((PickledModule, name) for name in modules)]
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols; the error that follows says more
            content = torch.load(str(path), map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
            return content.tensors() if isinstance(content, PickledModule) else content
    except pickle.UnpicklingError as error:
        raise ValueError(_refusal(path, str(error))) from error
    except _DAMAGE as error:
        raise ValueError(
            f"{path}: truncated or damaged, not a whole PyTorch checkpoint ({_one_line(error)}); copy it again"
        ) from error


def refuse_what_is_no_pickle(path: Path) -> None:
    """ValueError that says what the file is, where it is no PyTorch checkpoint at all."""
    with path.open("rb") as file:
        start = file.read(_TEXT)
    if start.startswith(b"PK"):
        _refuse_zip(path)
    elif tarfile.is_tarfile(path):
        raise ValueError(
            f"{path}: a tar archive, not weights (PyTorch before 0.4 wrote such files); unpack it if it is a download, "
            "else re-save it with the PyTorch that wrote it"
        )
    elif not start.startswith(PICKLE_STARTS):
        raise ValueError(f"{path}: {_what_it_looks_like(start)}")


def _refuse_zip(path: Path) -> None:
    try:
        names = _names_in(path) if zipfile.is_zipfile(path) else None
    except _DAMAGE as error:
        raise ValueError(f"{path}: truncated or damaged ({_one_line(error)}); copy it again") from error
    if names is None:
        raise ValueError(f"{path}: truncated: the end of the file is missing; copy it again")
    if any(name.endswith("/constants.pkl") for name in names):
        raise ValueError(
            f"{path}: a TorchScript program, which is code; save its weights alone: "
            "torch.save(torch.jit.load(...).state_dict(), 'weights.pth')"
        )
    if not any(name.endswith("/data.pkl") for name in names):
        listed = ", ".join(names[:3]) or "nothing"
        raise ValueError(f"{path}: a zip archive but no PyTorch checkpoint (it holds {listed}); unpack it first")


def _names_in(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def _what_it_looks_like(start: bytes) -> str:
    try:
        text = start.decode("utf-8", errors="ignore" if len(start) == _TEXT else "strict")
    except UnicodeDecodeError:
        text = "\0"
    if any(not (letter.isprintable() or letter.isspace()) for letter in text):
        return "neither a PyTorch checkpoint nor safetensors; was it copied whole?"
    if text.startswith(_LFS):
        return "a pointer of Git LFS, not the file itself; fetch it with git lfs pull"
    if text.lstrip().lower().startswith(("<!doctype", "<html")):
        return "a web page, not a checkpoint; download the file itself"
    return f"a text file, not a checkpoint (it begins with {' '.join(text.split())[:40]!r}); download it again"


def _refusal(path: Path, reason: str) -> str:
    found = _GLOBAL.search(reason)
    if found is None:
        return (
            f"{path}: refused: a pickle that holds more than tensors and plain data, or is damaged; nothing in it was "
            f"run. {_way_out(path)}"
        )
    return (
        f"{path}: refused: to load it would call {found[1]}, and a file that calls may run any code; nothing was run. "
        f"{_way_out(path)}"
    )


def _way_out(path: Path) -> str:
    return (
        "Weights need no code: get a safetensors file, or if you trust its maker, re-save the weights on a machine "
        f"without network or data: c = torch.load({path.name!r}, weights_only=False); "
        "torch.save({'model': dict(c['model'])}, 'weights.pth')"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
