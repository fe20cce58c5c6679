"""`tubelet predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from tubelet.names import one_line, writable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tubelet.data.dataset import Skipped
    from tubelet.inference.model import Model
    from tubelet.inference.predict import Prediction
    from tubelet.inference.progress import Progress
    from tubelet.video.lists.manifest import VideoRef

    Found = Sequence[Prediction | Skipped]

Form = Literal["table", "csv", "json"]
WIDTH_IN_FILES: Final = 240
"""Columns of a table that goes to a file or pipe: one line per video."""


def predict(
    videos: Annotated[list[Path], typer.Argument(help="Videos, folders of videos, lists (txt, csv, jsonl).")],
    model: Annotated[Path, typer.Option("--from", help="Fine-tuned run or checkpoint.")],
    top: Annotated[int, typer.Option(min=1, help="Classes to tell per video.")] = 5,
    clips: Annotated[int | None, typer.Option(min=1, help="Clips in time per video; the recipe's by default.")] = None,
    crops: Annotated[int | None, typer.Option(min=1, help="Crops in space per clip; the recipe's by default.")] = None,
    form: Annotated[
        Form | None, typer.Option("--format", help="By default what the name after -o ends in, else a table.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File for the result.")] = None,
    root: Annotated[Path | None, typer.Option(help="Folder that the paths of a list start from.")] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Frames of a clip; the model's by default.")] = None,
    size: Annotated[int | None, typer.Option(min=1, help="Pixels of a clip; the model's by default.")] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")] = "auto",
    precision: Annotated[
        Literal["auto", "bf16", "fp32"] | None, typer.Option(help="Numbers to compute in; the recipe's by default.")
    ] = None,
) -> None:
    """Tell the likeliest classes of videos, with the scores that `tubelet evaluate` gives.

    A video that cannot be read is named on stderr, the others are done, and the exit code is 2.

    Example: `tubelet predict clip.mp4 more/ --from runs/fine --top 3 -o classes.csv`
    """
    from tubelet.cli.terminal.progress import RichProgress
    from tubelet.inference.predict import predict as classify

    if out is not None and not out.absolute().parent.is_dir():
        raise ValueError(f"{out.parent}: no such folder for the result")
    progress = RichProgress()
    loaded = _load(model, frames=frames, size=size, device=device, precision=precision)
    listed, found_beside = _listed(videos, root, loaded.clip.frames)
    for note in (*loaded.notes, *found_beside):
        progress.say(note)
    found = classify(loaded, listed, clips=clips, crops=crops, progress=progress)
    _give(_text(found, top, form or _form_of(out), to_file=out is not None), out, progress)
    bad = _unreadable(found)
    if bad:
        progress.say(f"{bad} of {len(found)} videos cannot be read")
        raise typer.Exit(2)


def _give(text: str, out: Path | None, progress: Progress) -> None:
    from tubelet.disk.write import write_text

    if out is None:
        typer.echo(text, nl=False)
        return
    write_text(out, text)
    progress.say(f"predictions: {out}")


def _unreadable(found: Found) -> int:
    from tubelet.data.dataset import Skipped

    return sum(isinstance(one, Skipped) for one in found)


def _listed(sources: list[Path], root: Path | None, clip_frames: int) -> tuple[list[VideoRef], list[str]]:
    """The videos of all sources, and the notes on them."""
    from tubelet.video.lists.manifest import read_manifest

    read = [read_manifest(source, root=root, labelled=False, clip_frames=clip_frames) for source in sources]
    return [video for one in read for video in one.videos], [note for one in read for note in one.notes]


def _load(
    path: Path,
    *,
    frames: int | None,
    size: int | None,
    device: Literal["auto", "cpu", "cuda"],
    precision: Literal["auto", "bf16", "fp32"] | None,
) -> Model:
    from tubelet.inference.model import load

    return load(path, frames=frames, size=size, device=device, precision=precision)


def _form_of(out: Path | None) -> Form:
    if out is None or out.suffix.lower() not in (".csv", ".json"):
        return "table"
    return "csv" if out.suffix.lower() == ".csv" else "json"


def _text(found: Found, top: int, form: Form, *, to_file: bool) -> str:
    if form == "csv":
        return _csv(found, top)
    return _json(found, top) if form == "json" else _table(found, top, to_file=to_file)


def _csv(found: Found, top: int) -> str:
    """A row per video: path, class_1, score_1, class_2, ..., and the reason where it cannot be read."""
    from tubelet.data.dataset import Skipped
    from tubelet.disk.tables import Cell, csv_text

    kept = _kept(found, top)
    header = ["path", *[f"{what}_{place}" for place in range(1, kept + 1) for what in ("class", "score")], "error"]
    rows: list[list[Cell]] = []
    for one in found:
        if isinstance(one, Skipped):
            rows.append([str(one.path), *[None] * (2 * kept), one.reason])
        else:
            rows.append([str(one.path), *[cell for guess in one.top(kept) for cell in (guess.name, guess.score)], None])
    return csv_text(header, rows)


def _json(found: Found, top: int) -> str:
    import json

    from tubelet.data.dataset import Skipped

    rows = [
        {"path": writable(str(one.path)), "error": one.reason}
        if isinstance(one, Skipped)
        else {
            "path": writable(str(one.path)),
            "predictions": [{"class": name, "label": label, "score": score} for name, label, score in one.top(top)],
        }
        for one in found
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


def _table(found: Found, top: int, *, to_file: bool) -> str:
    """As it looks on this terminal, or plain and with wide lines where it goes elsewhere."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from tubelet.data.dataset import Skipped

    kept = _kept(found, top)
    table = Table("video", *[str(place) for place in range(1, kept + 1)], box=None, pad_edge=False)
    for one in found:
        name = escape(one_line(str(one.path)))
        if isinstance(one, Skipped):
            table.add_row(name, "[red]cannot be read[/]")
        else:
            table.add_row(name, *[f"{escape(g.name)} [bold]{g.score:.3f}[/]" for g in one.top(kept)])
    console = Console()
    if to_file or not console.is_terminal:
        console = Console(width=WIDTH_IN_FILES, force_terminal=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def _kept(found: Found, top: int) -> int:
    """How many classes there are to tell: `top`, or all where there are fewer."""
    from tubelet.data.dataset import Skipped

    classes = [len(one.names) for one in found if not isinstance(one, Skipped)]
    return min([top, *classes])
