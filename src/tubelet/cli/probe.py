"""`tubelet probe`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tubelet.cli.terminal.common import Device, Frames, Pool, Precision, Root, Size

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tubelet.inference.probe.probe import Kind, ProbeReport


Train = Annotated[
    Path, typer.Option(help="Labelled videos to learn from: a list, or a folder with a sub-folder a class.")
]
ClassNames = Annotated[
    Path | None, typer.Option("--class-names", help="File with one class name a line, in the order of the labels.")
]
AllowMissing = Annotated[
    bool, typer.Option("--allow-missing", help="Leave unreadable validation videos out instead of stopping.")
]
MaxSkipped = Annotated[float, typer.Option(min=0, max=1, help="Largest share of unreadable training videos.")]
Workers = Annotated[int | None, typer.Option(min=0, help="Processes that decode; the recipe's by default.")]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="Folder for results and features; runs/probe-MODEL by default.")
]


def probe(
    model: Annotated[Path, typer.Argument(help="Trained run or checkpoint; its encoder stays as it is.")],
    train: Train,
    val: Annotated[Path, typer.Option(help="Labelled videos to be tested on.")],
    kind: Annotated[Literal["knn", "linear", "attentive", "all"], typer.Option(help="Which probe.")] = "all",
    root: Root = None,
    class_names: ClassNames = None,
    k: Annotated[int, typer.Option("-k", help="Neighbours that vote.")] = 20,
    clips: Annotated[int, typer.Option(min=1, help="Clips in time per video.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of folds, weights and order.")] = 0,
    allow_missing: AllowMissing = False,
    max_skipped: MaxSkipped = 0.0,
    frames: Frames = None,
    size: Size = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    pool: Pool = "mean",
    workers: Workers = None,
    out: Out = None,
) -> None:
    """Test frozen features on labelled videos: nearest neighbours, logistic regression, attentive pooling.

    Videos are read once: their features lie in the output folder and are used again by the next run.

    Example: `tubelet probe runs/pre --train train.csv --val val.csv -o runs/probe`
    """
    from tubelet.cli.terminal.progress import RichProgress
    from tubelet.inference.model import load
    from tubelet.inference.probe.probe import PROBES, ProbeSettings
    from tubelet.inference.probe.probe import probe as run
    from tubelet.sets.pair import read_sets

    if k < 1:
        raise ValueError(f"-k is {k}; a vote needs at least one neighbour")
    kinds: tuple[Kind, ...] = tuple(PROBES) if kind == "all" else (kind,)
    settings = ProbeSettings(
        kinds=kinds, k=k, clips=clips, seed=seed, max_skipped=max_skipped, allow_missing=allow_missing, workers=workers
    )
    loaded = load(model, frames=frames, size=size, device=device, precision=precision, pooling=pool)
    sets = read_sets(train, val, root=root, names_file=class_names, clip_frames=loaded.clip.frames)
    place = model.resolve()
    folder = out or Path("runs") / f"probe-{place.name if place.is_dir() else place.stem}"
    _show(run(loaded, sets, out=folder, settings=settings, progress=RichProgress()))


def _show(report: ProbeReport) -> None:
    from rich.console import Console

    console = Console()
    console.print(_table(report))
    for line in _lines(report):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    typer.echo(f"results: {report.out} (probe.json, and a folder per probe)")


def _table(report: ProbeReport) -> RenderableType:
    from rich.table import Table

    learnt, tested = report.videos
    has_top5 = any(found.top5 is not None for found in report.results)
    titles = ["probe", "top-1", "95 %", *(["top-5"] if has_top5 else []), "chance"]
    table = Table(*titles, title=f"{tested} videos, after {learnt} to learn from")
    for found in report.results:
        top5 = [] if found.top5 is None else [f"{found.top5:.1%}"]
        low, high = found.interval
        table.add_row(found.kind, f"{found.top1:.1%}", f"{low:.1%} to {high:.1%}", *top5, f"{report.chance:.1%}")
    return table


def _lines(report: ProbeReport) -> list[str]:
    """What each probe found besides, in words."""
    from tubelet.inference.probe.probe import PROBES

    said = [PROBES[found.kind].words(found, report.chance) for found in report.results]
    lines = [line for line in said if line]
    if report.skipped:
        lines.append(f"{len(report.skipped)} training videos could not be read: {report.out / 'skipped.csv'}")
    if report.missing:
        lines.append(f"{len(report.missing)} validation videos could not be read and are not counted")
    return lines
