"""A `.npy` file that grows row by row, so that what is larger than memory can be written, and mapped afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from jaxtyping import Shaped

from tubelet.disk.write import whole_file

MOST_ROWS: Final = 2**62
"""Sizes the header for the first, so that the true number fits in its place afterwards."""


class RowFile:
    """Rows of one shape and type on their way to a file; use `row_file`."""

    def __init__(self, file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype, self.rows = shape, dtype, 0
        self._file = file
        self._header(MOST_ROWS)
        self._start = file.tell()

    def add(self, rows: Shaped[np.ndarray, "..."]) -> None:
        """Append rows [V, *shape]; they must have the type of the file."""
        assert rows.shape[1:] == self.shape, f"{rows.shape} into rows of {self.shape}"
        assert rows.dtype == self.dtype, f"{rows.dtype} into {self.dtype}"
        self._file.write(np.ascontiguousarray(rows).data)
        self.rows += len(rows)

    def finish(self) -> None:
        """Write down how many rows there are; none can be added any more."""
        self._file.seek(0)
        self._header(self.rows)
        assert self._file.tell() == self._start, "the header grew over the rows"

    def _header(self, rows: int) -> None:
        shape = (rows, *self.shape)
        facts = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, facts)


@contextmanager
def row_file(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Iterator[RowFile]:
    """Rows of this shape and type to `path`; the file appears whole on leaving, or not at all after an error.

    Through write(), not a memory map: a full disk is then an OSError and not the death of the process.
    """
    with whole_file(path) as temporary, temporary.open("wb") as file:
        rows = RowFile(file, shape, dtype)
        yield rows
        rows.finish()
