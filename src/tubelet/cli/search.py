"""`tubelet search`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from tubelet.cli.terminal.common import Device
from tubelet.names import one_line, restored, writable

if TYPE_CHECKING:
    from rich.table import Table

    from tubelet.inference.embed.store import Facts
    from tubelet.inference.model import Model
    from tubelet.inference.search.search import Hits

WIDTH_IN_FILES: Final = 240
"""Columns of a table that goes to a file or pipe: one line per hit."""


def search(
    query: Annotated[Path, typer.Argument(help="Video to look for.")],
    store: Annotated[Path, typer.Option("--in", help="Embeddings, as tubelet embed writes them.")],
    model: Annotated[
        Path | None, typer.Option("--from", help="The model that made them; where it was by default.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many clips to show.")] = 8,
    at: Annotated[float | None, typer.Option(min=0, help="Look for the clip around this second only.")] = None,
    one_per_video: Annotated[
        bool, typer.Option("--one-per-video", help="Of each video, show the best clip only.")
    ] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG sheet of frames.")] = Path("search.png"),
    no_sheet: Annotated[bool, typer.Option("--no-sheet", help="Write no sheet.")] = False,
    json: Annotated[Path | None, typer.Option(help="Also write what was found to this JSON file.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Also write what was found to this CSV file.")] = None,
    root: Annotated[Path | None, typer.Option(help="Folder that the embedded paths start from, if it moved.")] = None,
    device: Device = "auto",
) -> None:
    """Find the clips that are most like those of a video: a table, and a sheet of frames.

    Example: `tubelet search query.mp4 --in embeddings.parquet -k 8 -o search.png`
    """
    from tubelet.inference.embed.store import read_embeddings
    from tubelet.inference.search.contact_sheet import sheet
    from tubelet.inference.search.search import Choice
    from tubelet.inference.search.search import search as find
    from tubelet.pictures.strips import write_png
    from tubelet.video.lists.manifest import refuse_image

    _check(query, None if no_sheet else out, (json, csv))
    embeddings = read_embeddings(store)
    if embeddings.facts.clip.frames > 1:
        refuse_image(query, str(query))
    found = find(
        query,
        embeddings,
        _model(model, store, embeddings.facts, device),
        Choice(k=k, at_seconds=at, one_per_video=one_per_video),
    )
    _show(found)
    _write(found, json=json, csv=csv)
    if not no_sheet:
        write_png(sheet(found, root or Path(restored(embeddings.facts.root))), out)
        typer.echo(f"sheet: {out}")


def _check(query: Path, sheet: Path | None, others: tuple[Path | None, ...]) -> None:
    """ValueError for a query that is not there, or a place that cannot be written to."""
    from tubelet.pictures.strips import refuse_unwritable
    from tubelet.video.read.frame_range import is_there

    if not is_there(query):
        raise ValueError(f"{query}: no such video file")
    if sheet is not None:
        if sheet.suffix.lower() != ".png":
            raise ValueError(f"{sheet}: the sheet is a .png file")
        refuse_unwritable(sheet, "-o")
    for path in others:
        if path is not None and not path.absolute().parent.is_dir():
            raise ValueError(f"{path.parent}: no such folder for the result")


def _model(given: Path | None, store: Path, facts: Facts, device: Literal["auto", "cpu", "cuda"]) -> Model:
    """The model that made the embeddings, for clips of their shape."""
    from tubelet.inference.model import load

    path = given or Path(facts.model)
    if given is None and not path.exists():
        raise ValueError(f"{store}: its model is no longer at {path}; name it with --from")
    return load(
        path,
        frames=facts.clip.frames,
        size=facts.clip.size,
        device=device,
        precision=facts.precision,
        pooling=facts.pooling,
    )


def _show(found: Hits) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH_IN_FILES)
    console.print(_table(found))


def _table(found: Hits) -> Table:
    from rich.markup import escape
    from rich.table import Table

    from tubelet.inference.search.contact_sheet import span

    several = len(found.windows) > 1
    table = Table(box=None, pad_edge=False)
    for title in ("rank", "score"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("video", overflow="fold")
    table.add_column("time", no_wrap=True)
    if several:
        table.add_column("like the query's", no_wrap=True)
    times = {window.clip: span(window.start_seconds, window.end_seconds) for window in found.windows}
    for hit in found.hits:
        name, time = escape(one_line(hit.name)), span(hit.start_seconds, hit.end_seconds)
        cells = [str(hit.rank), f"{hit.score:.4f}", name, time]
        table.add_row(*cells, *([times[hit.query_clip]] if several else []))
    return table


def _write(found: Hits, *, json: Path | None, csv: Path | None) -> None:
    import csv as tables
    import io
    import json as objects
    from dataclasses import asdict

    from tubelet.disk.write import write_text

    rows = [asdict(hit) for hit in found.hits]
    if json is not None:
        write_text(json, objects.dumps({"query": writable(str(found.query)), "hits": rows}, indent=1) + "\n")
    if csv is not None:
        text = io.StringIO()
        writer = tables.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(csv, text.getvalue())
