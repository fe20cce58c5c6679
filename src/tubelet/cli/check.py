"""`tubelet check`: which videos of a folder or list can be read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tubelet.names import one_line, writable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from tubelet.video.lists.manifest import VideoRef
    from tubelet.video.work.scan import Report


WIDTH_IN_FILES: Final = 240
"""Columns where the output goes to a file or pipe: one line per video, so that it can be searched."""


def check(
    source: Annotated[Path, typer.Argument(help="Folder of videos, a list (txt, csv, jsonl), or one video.")],
    root: Annotated[Path | None, typer.Option(help="Folder that the paths of a list start from.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the table to this CSV file, too.")] = None,
    broken: Annotated[bool, typer.Option("--broken", help="List the broken files only.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with code 1 if a file is broken.")] = False,
    images: Annotated[
        bool, typer.Option("--images", help="Images count one by one: for recipes of one frame.")
    ] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one per core by default.")] = None,
    limit: Annotated[float, typer.Option(min=0.1, help="Seconds after which a file counts as broken.")] = 120.0,
) -> None:
    """Decode every video in full and list what can be read: frames, rate, size, length, codec; and why not."""
    from rich.console import Console

    from tubelet.video.lists.manifest import read_manifest

    manifest = read_manifest(source, root=root, labelled=False, clip_frames=1 if images else None)
    videos = manifest.videos
    if csv is not None and not csv.parent.is_dir():
        raise ValueError(f"{csv.parent}: no such folder for the CSV file")
    reports = _scan(videos, workers=workers, limit_seconds=limit)
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH_IN_FILES)
    for note in manifest.notes:
        console.print(one_line(note), highlight=False, markup=False)
    _show(console, videos, reports, broken_only=broken)
    bad = sum(not report.is_readable for report in reports)
    frames = sum(report.frames for report in reports if report.is_readable)
    console.print(
        f"{len(reports)} files: [green]{len(reports) - bad} readable[/] ({frames} frames), "
        + (f"[red]{bad} broken[/]" if bad else "none broken")
    )
    if csv is not None:
        _write_csv(csv, videos, reports)
    raise typer.Exit(1 if strict and bad else 0)


def _scan(videos: Sequence[VideoRef], *, workers: int | None, limit_seconds: float) -> list[Report]:
    import os

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from tubelet.video.work.scan import Report, scan

    reports = [Report(0, None, "not looked at")] * len(videos)
    columns = (TextColumn("decoding"), BarColumn(), MofNCompleteColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[bad]} broken"), console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=len(videos), bad=0)
        bad = 0
        paths = [video.path for video in videos]
        for place, report in scan(paths, workers=workers or os.cpu_count() or 1, limit_seconds=limit_seconds):
            reports[place] = report
            bad += not report.is_readable
            progress.update(task, advance=1, bad=bad)
    return reports


def _show(console: Console, videos: Sequence[VideoRef], reports: Sequence[Report], *, broken_only: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("file", overflow="fold")
    for title in ("frames", "fps", "size", "seconds"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("codec", no_wrap=True)
    table.add_column("state", overflow="fold")
    for video, report in zip(videos, reports, strict=True):
        if broken_only and report.is_readable:
            continue
        state = "[green]readable[/]" if report.is_readable else f"[red]broken[/]: {escape(one_line(report.reason))}"
        size = "" if report.info is None else f"{report.info.width}x{report.info.height}"
        rate, seconds, codec = _facts(report)
        table.add_row(escape(one_line(video.name)), str(report.frames), rate, size, seconds, codec, state)
    if table.row_count:
        console.print(table)


def _write_csv(path: Path, videos: Sequence[VideoRef], reports: Sequence[Report]) -> None:
    import csv
    import io

    text = io.StringIO(newline="")
    out = csv.writer(text)
    out.writerow(["file", "readable", "frames", "fps", "width", "height", "seconds", "codec", "reason"])
    for video, report in zip(videos, reports, strict=True):
        width, height = ("", "") if report.info is None else (report.info.width, report.info.height)
        rate, seconds, codec = _facts(report)
        readable = "yes" if report.is_readable else "no"
        out.writerow([video.name, readable, report.frames, rate, width, height, seconds, codec, report.reason])
    with path.open("w", encoding="utf-8", newline="") as file:  # not under another name: it may be a pipe
        file.write(writable(text.getvalue()))


def _facts(report: Report) -> tuple[str, str, str]:
    """Rate, length and codec as text; empty where unknown."""
    if report.info is None:
        return "", "", ""
    return f"{report.info.fps:.3f}".rstrip("0").rstrip("."), f"{report.info.duration_seconds:.2f}", report.info.codec
