"""`tubelet demo`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from tubelet.cli.demo.run import DemoResult
    from tubelet.recipes.demo import Demo


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for videos, runs and the report.")] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of videos, weights, order, clips, masks.")] = 0,
    data_only: Annotated[bool, typer.Option("--data-only", help="Make the videos and their lists, no more.")] = False,
) -> None:
    """Make videos, pre-train, fine-tune, train the same from scratch, compare: ten minutes on two cores.

    Ends with a table and report.html. Stop it with Ctrl-C whenever you like; the same command goes on from there.

    Example: `tubelet demo --out demo`
    """
    from rich.console import Console

    from tubelet.cli.demo.run import run_demo
    from tubelet.cli.terminal.watch import training
    from tubelet.recipes.demo import demo as filled

    with training(out) as watch, videos_bar(watch.console) as on_videos:
        if data_only:
            _make_data(filled(out, seed=seed), out, on_videos)
            return
        result = run_demo(filled(out, seed=seed), out, watch, on_videos=on_videos)
    Console().print(table(result))
    typer.echo(f"report: {result.report}")


def _make_data(demo: Demo, out: Path, on_videos: Callable[[int, int], None]) -> None:
    """The videos of the demo, and lists of them for `tubelet run demo-progressive`."""
    from tubelet.data.synthetic.hybrid import write_hybrid
    from tubelet.data.synthetic.videos import make_dataset
    from tubelet.doctor.machine import cores
    from tubelet.recipes.demo import DATA
    from tubelet.recipes.progressive import DEMO_DATA

    made = make_dataset(out / DATA, demo.videos, workers=min(cores(), 8), on_progress=on_videos)
    write_hybrid(made, demo.videos)
    typer.echo(f"videos: {made.folder}")
    if made.folder == DEMO_DATA:
        typer.echo("next: tubelet run demo-progressive --out runs/demo-progressive")


def table(result: DemoResult) -> RenderableType:
    """Accuracies with intervals, and how long it took."""
    from rich.table import Table

    from tubelet.data.synthetic.scenes import MOTIONS

    drawn = Table(title=f"Motions named rightly ({sum(result.seconds.values()) / 60:.1f} minutes in all)")
    drawn.add_column("model")
    drawn.add_column("top-1", justify="right")
    drawn.add_column("95 % interval", justify="right")
    for name, (value, low, high) in result.top1.items():
        drawn.add_row(name, f"{value:.1%}", f"{low:.1%} to {high:.1%}")
    drawn.add_row("chance", f"{1 / len(MOTIONS):.1%}", "")
    return drawn


@contextmanager
def videos_bar(console: Console) -> Iterator[Callable[[int, int], None]]:
    """A bar on terminals, gone once it is full; what it yields is called with videos made and in all."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("making videos"), BarColumn(bar_width=24), MofNCompleteColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task("", total=None)

    def show(done: int, total: int) -> None:
        if done < total and not bar.live.is_started:
            bar.start()
        bar.update(task, completed=done, total=total)
        if done == total:
            bar.stop()

    try:
        yield show
    finally:
        bar.stop()
