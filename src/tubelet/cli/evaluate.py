"""`tubelet evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from tubelet.eval.reports import Evaluation, Row

WORST = 5


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder of a finished fine-tuning.")],
    source: Annotated[Path, typer.Argument(help="Labelled videos: a list, or a folder with a sub-folder a class.")],
    clips: Annotated[int | None, typer.Option(min=1, help="Clips in time per video; the recipe's by default.")] = None,
    crops: Annotated[int | None, typer.Option(min=1, help="Crops in space per clip; the recipe's by default.")] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder that the paths of a list start from; the recipe's by default.")
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Report unreadable videos as missing instead of stopping.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the results; in RUN by default.")] = None,
) -> None:
    """Test a classifier: accuracy over many views, per-class table, confusion matrix, predictions.

    Example: `tubelet evaluate runs/fine test.csv --clips 5 --crops 3`
    """
    from rich.console import Console

    from tubelet.cli.terminal.watch import RichWatch
    from tubelet.eval.evaluate import Rooted
    from tubelet.eval.evaluate import evaluate as test

    videos = source if root is None else Rooted(source, root)
    result = test(run, videos, watch=RichWatch(), clips=clips, crops=crops, allow_missing=allow_missing, out=out)
    console = Console()
    console.print(_summary(result))
    worst = result.worst(WORST)
    if worst:
        console.print(_worst(worst[0], worst[1:]))
    files = "metrics.json, predictions.csv" + (", classes.csv, confusion.csv, confusion.png" if worst else "")
    typer.echo(f"results: {result.out} ({files})")


def _summary(result: Evaluation) -> RenderableType:
    from rich.table import Table

    table = Table("", "", title=f"{result.videos} videos, {result.clips} x {result.crops} views", show_header=False)
    for name, value in result.summary:
        table.add_row(name, value)
    if result.missing:
        table.add_row("missing videos", f"{len(result.missing)}, not counted")
    return table


def _worst(header: Row, rows: Sequence[Row]) -> RenderableType:
    from rich.markup import escape
    from rich.table import Table

    table = Table(*header, title="worst classes")
    for row in rows:
        table.add_row(*map(escape, row))
    return table
