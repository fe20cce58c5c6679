"""Writing so that a crash leaves the old file or the new one, never half of either."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_NO_LOCKS: Final = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # some network file systems


def sync(path: Path) -> None:
    """Ask the disk to keep a file or a folder's list of names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Replace a file by this text, whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def temporary_of(path: Path) -> Path:
    """Where `new_folder` has a folder written before it takes the place of `path`."""
    return path.with_name(f".{path.name}.tmp")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` to write into; on leaving its files are synced and it takes the place of `path`.

    After an error the temporary folder is gone and what stood at `path` still stands.
    """
    temporary = temporary_of(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for file in sorted(temporary.iterdir()):
            sync(file)
        sync(temporary)
        if path.exists():
            old = path.with_name(f".{path.name}.old.tmp")
            path.replace(old)
            temporary.replace(path)
            shutil.rmtree(old)
        else:
            temporary.replace(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync(path.parent)


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


def is_disk_full(error: OSError) -> bool:
    """Whether writing failed for want of space or quota."""
    return error.errno in _FULL
