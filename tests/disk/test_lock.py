"""One process at a time; the dead hold nothing; where there are no locks nobody is kept out."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tubelet.disk import write
from tubelet.disk.lock import alone_in, held, only_run_in, waited_for
from tubelet.disk.write import new_folder, whole_file, write_list, write_text


def wait_for(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.01)


def hold_with_a_child(folder: Path) -> None:
    """Take the lock, and start a process that lives longer, as workers do."""
    with only_run_in(folder):
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
        (folder / "child.tmp").write_text(str(child.pid))
        (folder / "child.tmp").replace(folder / "child")
        time.sleep(60)


def test_a_process_that_is_killed_lets_go_though_its_children_live(tmp_path: Path) -> None:
    holder = multiprocessing.get_context("fork").Process(target=hold_with_a_child, args=(tmp_path,))
    holder.start()
    wait_for(tmp_path / "child")
    try:
        with pytest.raises(ValueError, match="another process trains in this folder; wait for it, or choose --out"):
            only_run_in(tmp_path).__enter__()
        os.kill(holder.pid or 0, signal.SIGKILL)
        holder.join()
        with only_run_in(tmp_path):
            assert (tmp_path / ".lock").exists()
    finally:
        os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)
    assert not (tmp_path / ".lock").exists()


def test_a_second_one_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with alone_in(tmp_path):
        for _ in range(2):
            with pytest.raises(ValueError, match="another process is writing here"):
                alone_in(tmp_path).__enter__()
    with alone_in(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_keeps_nobody_out(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **named: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(FileLock, "acquire", fail)
    with held(tmp_path / "a", "taken"), waited_for(tmp_path / "b"), held(tmp_path / "a", "taken"):
        pass


def test_other_errors_are_not_hidden(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError):
        held(tmp_path / "a", "taken").__enter__()


def hold_and_remove(folder: Path) -> None:
    with waited_for(folder / "work" / ".lock"):
        (folder / "held").touch()
        time.sleep(0.5)
        shutil.rmtree(folder / "work")
        (folder / "removed").touch()
        time.sleep(0.2)


def test_who_waits_gets_the_lock_though_the_folder_goes(tmp_path: Path) -> None:
    holder = multiprocessing.get_context("fork").Process(target=hold_and_remove, args=(tmp_path,))
    holder.start()
    wait_for(tmp_path / "held")
    with waited_for(tmp_path / "work" / ".lock"):
        assert (tmp_path / "removed").exists()
        assert (tmp_path / "work" / ".lock").exists()
    holder.join()


def stop_within(path: Path) -> None:
    with whole_file(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with pytest.raises(KeyboardInterrupt):
        stop_within(path)
    assert not list(tmp_path.iterdir())
    with whole_file(path) as temporary:
        temporary.write_text("one")
        assert not path.exists()
    with pytest.raises(KeyboardInterrupt):
        stop_within(path)
    assert {one.name: one.read_text() for one in tmp_path.iterdir()} == {"a": "one"}


def test_what_is_written_is_synced_and_so_is_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(write, "sync", synced.append)
    with whole_file(tmp_path / "a") as temporary:
        temporary.touch()
    assert synced == [temporary, tmp_path]
    synced.clear()
    with new_folder(tmp_path / "b") as folder:
        (folder / "inner").mkdir()
        (folder / "inner/c").touch()
    assert synced == [folder / "inner", folder / "inner/c", folder, tmp_path]


def test_names_that_are_not_utf8_are_escaped_in_texts_and_kept_in_lists(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.mp4")
    write_text(tmp_path / "text", name)
    write_list(tmp_path / "list", name)
    assert (tmp_path / "text").read_bytes() == b"\\udcff.mp4"
    assert (tmp_path / "list").read_bytes() == b"\xff.mp4"
