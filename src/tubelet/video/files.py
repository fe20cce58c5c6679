"""Text files that appear whole or not at all, and folders that one process works in at a time."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_NO_LOCKS: Final = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # some network file systems


def write_whole(path: Path, text: str) -> None:
    """Replace a file by this text: under a temporary name, synced, renamed."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(text.encode("utf-8", "surrogateescape"))  # file names need not be UTF-8
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Inside, no other process is in this block for this folder; ValueError where one is."""
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise ValueError(f"{folder}: another process is writing here; wait for it, or choose another") from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield
