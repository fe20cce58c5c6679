"""A `.npy` file that grows row by row, so that what is larger than memory can be written, and mapped afterwards."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
from jaxtyping import Shaped

MOST_ROWS: Final = 2**62
"""Sizes the header for the first, so that the true number fits in its place afterwards."""


class RowFile:
    """Write rows of one shape and type to `path`; the file appears whole on leaving, or not at all after an error.

    Through write(), not a memory map: a full disk is then an OSError and not the death of the process.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.path, self.shape, self.dtype = path, shape, dtype
        self.rows = 0
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")

    def __enter__(self) -> RowFile:
        self._file = self._temporary.open("wb")
        self._header(MOST_ROWS)
        self._start = self._file.tell()
        return self

    def add(self, rows: Shaped[np.ndarray, "..."]) -> None:
        """Append rows [V, *shape]; they must have the type of the file."""
        assert rows.shape[1:] == self.shape, f"{rows.shape} into rows of {self.shape}"
        assert rows.dtype == self.dtype, f"{rows.dtype} into {self.dtype}"
        self._file.write(np.ascontiguousarray(rows).data)
        self.rows += len(rows)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._file.seek(0)
                self._header(self.rows)
                assert self._file.tell() == self._start, "the header grew over the rows"
                self._file.flush()
                os.fsync(self._file.fileno())
            self._file.close()
            if error is None:
                self._temporary.replace(self.path)
        finally:
            self._file.close()
            self._temporary.unlink(missing_ok=True)

    def _header(self, rows: int) -> None:
        shape = (rows, *self.shape)
        facts = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, facts)
