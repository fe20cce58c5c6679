"""The folder of a run: made, held by one process, cleaned of what a killed one left."""

from __future__ import annotations

import errno
import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tubelet.disk.write import is_disk_full as is_disk_full
from tubelet.disk.write import new_folder as new_folder
from tubelet.disk.write import temporary_of as temporary_of
from tubelet.disk.write import write_text as write_text

_NO_LOCKS: Final = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # some network file systems


def remove_leftovers(folder: Path) -> None:
    """Remove what `write_text` and `new_folder` left when the process was killed within them."""
    for path in folder.glob(".*.tmp"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def open_folder(out: Path) -> None:
    """Make the folder of a run and try it; ValueError where it cannot be written."""
    probe = out / ".probe.tmp"
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"1")
        probe.unlink()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(f"{out}: the output folder cannot be written ({reason}); choose another with --out") from error


@contextmanager
def only_run_in(out: Path) -> Iterator[None]:
    """Inside, no other process can hold this folder; ValueError where one does. A process that dies lets go of it."""
    path = out / ".lock"
    with path.open("w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise ValueError(f"{out}: another process trains in this folder; wait for it, or choose --out") from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


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
