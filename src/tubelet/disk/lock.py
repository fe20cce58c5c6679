"""Locks between processes: files that one process holds at a time; the system takes them from a process that dies."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

LOCK: Final = ".lock"
_NO_LOCKS: Final = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # some network file systems
_POLL_SECONDS: Final = 0.05


@contextmanager
def only_run_in(out: Path) -> Iterator[None]:
    """Inside, no other process trains in this folder; ValueError where one does."""
    with held(out / LOCK, f"{out}: another process trains in this folder; wait for it, or choose --out"):
        yield


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Inside, no other process is in this block for this folder; ValueError where one is."""
    with held(folder / LOCK, f"{folder}: another process is writing here; wait for it, or choose another"):
        yield


@contextmanager
def held(path: Path, taken: str) -> Iterator[None]:
    """Inside, no other process holds the lock file `path`, which is removed on leaving.

    ValueError that says `taken` where one does. Where the file system has no locks nobody is kept out.
    """
    lock = _lock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise ValueError(taken) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: afterwards it may be the file of the next one
        lock.release()


@contextmanager
def waited_for(path: Path) -> Iterator[None]:
    """Inside, no other process holds the lock file `path`; waits until that is so. Its folder may go in between."""
    lock = _lock(path)
    while True:
        try:
            lock.acquire(poll_interval=_POLL_SECONDS)  # makes the folder
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        break
    try:
        yield
    finally:
        lock.release()


def _lock(path: Path) -> FileLock:
    """A lock that is the system's or none: a file that merely exists would outlive a process that is killed."""
    return FileLock(path, fallback_to_soft=False)
