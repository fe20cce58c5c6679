"""`tubelet prepare`: videos made ready for training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from tubelet.video.prepare.collection import Collection, SkippedSource
    from tubelet.video.prepare.record import Record

WHOLE_UP_TO_SECONDS: Final = 600.0
MAX_SKIPPED: Final = 0.25
REASONS: Final = 10
"""How many different reasons for skipped videos are shown."""
LINES_WITHOUT_TERMINAL: Final = 20
INTERRUPTED: Final = 130

Source = Annotated[Path, typer.Argument(help="Folder of videos, or a list (txt, csv, jsonl).")]
Out = Annotated[Path, typer.Argument(help="Folder for the prepared videos; several lists may share it.")]
Root = Annotated[Path | None, typer.Option(help="Folder that paths start from.")]
Labelled = Annotated[bool, typer.Option("--labelled", help="Keep labels: of a list, or folders as classes.")]
Name = Annotated[str | None, typer.Option(help="Name of the list to write; that of the source by default.")]
ShortSide = Annotated[int, typer.Option(min=2, help="Pixels, at most; training reads 10/7 of the clip size.")]
Fps = Annotated[
    float | None, typer.Option(min=0.001, max=1000, help="Constant frame rate; all frames at their times by default.")
]
Gop = Annotated[int, typer.Option(min=1, help="Frames from one key frame to the next, at most.")]
Crf = Annotated[int, typer.Option(min=0, max=51, help="x264 quality: 0 is lossless, 23 usual.")]
SegmentSeconds = Annotated[
    float | None,
    typer.Option(min=0, help="Cut longer videos into equal parts; 0: never. By default 600, with --labelled 0."),
]
Shards = Annotated[str | None, typer.Option(help="Write tar shards of at most this size, too: 256MB.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes; one per core by default.")]
Limit = Annotated[float, typer.Option(min=0.1, help="Seconds without progress after which a file is given up.")]
MaxSkipped = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Largest share of skipped videos. By default 0.25, with --labelled 0."),
]


def prepare(
    source: Source,
    out: Out,
    root: Root = None,
    labelled: Labelled = False,
    name: Name = None,
    short_side: ShortSide = 320,
    fps: Fps = None,
    gop: Gop = 24,
    crf: Crf = 23,
    segment_seconds: SegmentSeconds = None,
    shards: Shards = None,
    workers: Workers = None,
    limit: Limit = 120.0,
    max_skipped: MaxSkipped = None,
) -> None:
    """Make videos small and quick to decode for training: short side, short GOP, no sound; labels and times are kept.

    Stop it whenever you like: the same command goes on where it was, and does changed and new videos only.

    Example: `tubelet prepare videos/ prepared/ --short-side 320`
    """
    import os

    from rich.console import Console

    from tubelet.video.lists.manifest import read_manifest
    from tubelet.video.prepare.collection import open_collection
    from tubelet.video.prepare.lists import list_name, write_collection_shards, write_lists
    from tubelet.video.prepare.transcode import Preparation

    shard_bytes = None if shards is None else parse_size(shards)
    if segment_seconds is None:
        segment_seconds = 0 if labelled else WHOLE_UP_TO_SECONDS
    how = Preparation(short_side=short_side, fps=fps, gop=gop, crf=crf, segment_seconds=segment_seconds or None)
    manifest = read_manifest(source, root=root, labelled=labelled)
    with open_collection(manifest, out, how, root=root) as collection:
        name = list_name(manifest, out, name)
        console = Console(stderr=True)
        seconds = _work(console, collection, workers=workers or os.cpu_count() or 1, limit_seconds=limit)
        _report(console, collection, seconds)
        allowed = (0.0 if labelled else MAX_SKIPPED) if max_skipped is None else max_skipped
        listed = write_lists(collection, name, max_skipped=allowed)
        if shard_bytes is not None:
            tars = write_collection_shards(collection, name, shard_bytes=shard_bytes)
            typer.echo(f"shards: {tars[0]}" + (f" to {tars[-1].name}" if len(tars) > 1 else ""))
    typer.echo(f"list: {listed}\nsources: {out / 'sources.csv'}")
    typer.echo(f"next: tubelet {'finetune RECIPE --train' if labelled else 'pretrain RECIPE --data'} {listed}")


def parse_size(text: str) -> int:
    """Bytes of `256MB`, `1.5GB`, `500KB`: powers of 1000. ValueError for anything else."""
    import re

    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT])B?\s*", text, re.IGNORECASE)
    size = 0 if match is None else int(float(match[1]) * 1000 ** ("KMGT".index(match[2].upper()) + 1))
    if size == 0:
        raise ValueError(f"--shards {text!r}: give a size such as 256MB or 1GB")
    return size


def _work(console: Console, collection: Collection, *, workers: int, limit_seconds: float) -> float:
    """Prepare what is to be done, telling how far it is; returns the seconds that it took.

    A bar by bytes of source on a terminal, about twenty plain lines elsewhere. Ctrl-C ends it in one line.
    """
    import time

    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    started, tally = time.monotonic(), _Tally(collection)
    columns = (TextColumn("preparing"), BarColumn(), TextColumn("{task.description}"), TextColumn("left"))
    try:
        with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress:
            bar = progress.add_task("", total=tally.total)
            for task, said in collection.work(workers=workers, limit_seconds=limit_seconds):
                tally.add(task.name, said)
                text = tally.text(time.monotonic() - started)
                progress.update(bar, completed=tally.done, description=text)
                if not console.is_terminal and tally.is_time_to_tell():
                    console.print(text, highlight=False)
    except KeyboardInterrupt:
        console.print("stopped; what is prepared is kept, and the same command goes on from here")
        raise typer.Exit(INTERRUPTED) from None
    return time.monotonic() - started


class _Tally:
    """How much is done, in bytes of source and seconds of video."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._sizes = {task.name: max(task.source.bytes, 1) for task in collection.todo}
        self._shares = dict.fromkeys(self._sizes, 0.0)
        self.total = float(sum(self._sizes.values()))
        self.done, self._seconds, self._next = 0.0, 0.0, 0.0

    def add(self, name: str, said: float | Record | SkippedSource) -> None:
        """A share of a source, or what became of it."""
        share = said if isinstance(said, float) else 1.0
        gained = max(share - self._shares[name], 0.0)  # a file that is read a second time does not go backwards
        self._shares[name] += gained
        self.done += gained * self._sizes[name]
        from tubelet.video.prepare.record import Record

        self._seconds += said.seconds if isinstance(said, Record) else 0.0

    def text(self, took_seconds: float) -> str:
        """So many of so many, how fast, and how many were skipped."""
        skipped = len(self._collection.skipped)
        count = len(self._sizes) + len(self._collection.done_before)
        speed = self._seconds / max(took_seconds, 1e-6)
        end = f", {skipped} skipped" if skipped else ""
        return f"{len(self._collection.done)} of {count} videos, {speed:.0f}x real time{end}"

    def is_time_to_tell(self) -> bool:
        """Twenty times in all."""
        if self.done < self._next:
            return False
        self._next = self.done + self.total / LINES_WITHOUT_TERMINAL
        return True


def _report(console: Console, collection: Collection, took_seconds: float) -> None:
    """What was done, how fast, from how much to how much; and why videos were skipped."""
    from collections import Counter

    from rich.markup import escape

    new = [record for name, record in collection.done.items() if name not in collection.done_before]
    everything = list(collection.done.values())
    seconds = sum(record.seconds for record in new)
    console.print(
        f"prepared [green]{len(new)} videos[/], {_minutes(seconds)} long, in {_minutes(took_seconds)}"
        + (f" ({seconds / took_seconds:.0f}x real time)" if new else "")
        + (f"; {len(collection.done_before)} were there" if collection.done_before else "")
    )
    before, after = (
        sum(record.source.bytes for record in everything),
        sum(part.bytes for record in everything for part in record.parts),
    )
    files = sum(len(record.parts) for record in everything)
    console.print(f"{_size(before)} of sources became {_size(after)} in {files} files")
    if collection.skipped:
        console.print(f"[red]{len(collection.skipped)} videos skipped[/] (see {collection.out / 'skipped.csv'}):")
        for reason, count in Counter(one.reason for one in collection.skipped.values()).most_common(REASONS):
            console.print(f"  {count} x {escape(reason)}")


def _minutes(seconds: float) -> str:
    return (
        f"{seconds:.1f} s"
        if seconds < 120
        else f"{seconds / 60:.1f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def _size(count: float) -> str:
    for unit in ("bytes", "KB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB" if count < 1000 else f"{count / 1000:.3g} TB"
