"""A scan goes on whatever a file does to the process that decodes it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner
from video_files import write_video

from tubelet.cli.check import check
from tubelet.video.work.scan import Report, examine, scan


def moody(path: Path) -> Report:
    """Stands for FFmpeg on a file that crashes or hangs it."""
    if path.name == "crashes":
        os.kill(os.getpid(), signal.SIGSEGV)
    if path.name == "exits":
        os._exit(3)
    if path.name == "hangs":
        time.sleep(60)
    return Report(1, None)


def test_a_file_that_crashes_or_hangs_costs_only_itself() -> None:
    paths = [Path(name) for name in ("good", "crashes", "fine", "hangs", "exits", "last")]
    started = time.monotonic()
    reports = dict(scan(paths, workers=2, limit_seconds=1.5, examine=moody))
    assert time.monotonic() - started < 30
    assert sorted(reports) == list(range(6))
    assert {paths[place].name for place, report in reports.items() if report.is_readable} == {"good", "fine", "last"}
    assert "SIGSEGV" in reports[1].reason
    assert "1.5 seconds" in reports[3].reason
    assert "exit code 3" in reports[4].reason


def test_nothing_to_scan() -> None:
    assert list(scan([], workers=2, limit_seconds=1.0)) == []


def test_examine(tmp_path: Path) -> None:
    report = examine(write_video(tmp_path / "a.mp4", 7))
    assert report.is_readable
    assert report.info is not None
    assert report.frames == report.info.frames == 7
    (tmp_path / "b.mp4").write_bytes(b"no video")
    assert "cannot be opened" in examine(tmp_path / "b.mp4").reason


@pytest.mark.parametrize("strict", [False, True])
def test_check_lists_every_file(tmp_path: Path, strict: bool) -> None:
    write_video(tmp_path / "good.mp4", 7)
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    app = typer.Typer()
    app.command()(check)
    result = CliRunner().invoke(app, [str(tmp_path), "--workers", "1", *(["--strict"] if strict else [])])
    assert result.exit_code == int(strict)
    assert "2 files: 1 readable (7 frames), 1 broken" in result.output
    assert [line for line in result.output.splitlines() if line.startswith("bad.mp4") and "cannot be opened" in line]
    assert [line for line in result.output.splitlines() if line.startswith("good.mp4") and "64x48" in line]
