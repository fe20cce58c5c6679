"""Writing so that a crash leaves the old file or the new one, never half of either. Needs no torch."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tubelet.names import writable

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


def sync(path: Path) -> None:
    """Ask the disk to keep a file or a folder's list of names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Replace a file by this text, whole or not at all; names in it become `writable`."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            file.write(writable(text))
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


@contextmanager
def export_folder(out: Path) -> Iterator[Path]:
    """`new_folder` for what a user asked to be written at `out`: nobody's folder is replaced.

    ValueError where `out` is there already (an empty folder may be), or where it cannot be written.
    """
    out = out.resolve()  # "." has no name to put a temporary folder beside
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ValueError(f"{out}: is there already and is not an empty folder; choose another place to write to")
        with new_folder(out) as temporary:
            yield temporary
    except OSError as error:
        reason = "no space left on the disk" if is_disk_full(error) else error.strerror or str(error)
        raise ValueError(f"{out}: cannot be written ({reason}); nothing was left there") from error


def is_disk_full(error: OSError) -> bool:
    """Whether writing failed for want of space or quota."""
    return error.errno in _FULL


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
