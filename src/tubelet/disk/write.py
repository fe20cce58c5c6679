"""Writing so that a crash leaves the old file or the new one, never half of either. Needs no torch."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from tubelet.names import writable

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_IS_WINDOWS: Final = os.name == "nt"


def write_text(path: Path, text: str) -> None:
    """Replace a file by this text in UTF-8, whole or not at all; names in it become `writable`."""
    _write(path, writable(text).encode())


def write_list(path: Path, text: str) -> None:
    """`write_text` for lists of files, whose names are written as their bytes: what reads the list finds the files."""
    _write(path, text.encode("utf-8", "surrogateescape"))


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write a file to; on leaving it is synced and takes the place of `path`.

    After an error nothing is left of it, and what stood at `path` still stands. Processes may write the same file at
    the same time: one of theirs is there in the end.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        sync(temporary)
        move(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


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
        for written in sorted(temporary.rglob("*")):
            sync(written)
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


def temporary_of(path: Path) -> Path:
    """Where `new_folder` has a folder written before it takes the place of `path`."""
    return path.with_name(f".{path.name}.tmp")


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


def remove_leftovers(folder: Path) -> None:
    """Remove what the functions of this file left in a folder when the process was killed within them."""
    for path in folder.glob(".*.tmp"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def move(source: Path, target: Path) -> None:
    """Rename a file, or a folder to a name that is free, on one disk; a file at `target` is replaced."""
    source.replace(target)
    sync(target.parent)


def sync(path: Path) -> None:
    """Ask the disk to keep a file, or a folder's list of names (which Windows keeps by itself)."""
    if _IS_WINDOWS and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if _IS_WINDOWS else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_open(file: IO[Any]) -> None:
    """Ask the disk to keep what was written to an open file so far."""
    file.flush()
    os.fsync(file.fileno())


def is_disk_full(error: OSError) -> bool:
    """Whether writing failed for want of space or quota."""
    return error.errno in _FULL


def _write(path: Path, data: bytes) -> None:
    with whole_file(path) as temporary:
        temporary.write_bytes(data)
