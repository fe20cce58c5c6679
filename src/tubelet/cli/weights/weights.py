"""`tubelet weights`: look into a checkpoint of any origin, make it a run of ours, hand a model to other programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tubelet.weights.export.exports import EXPORTS

if TYPE_CHECKING:
    from tubelet.weights.checkpoint import Checkpoint
    from tubelet.weights.read import Hints

weights = typer.Typer(help="Look into checkpoints, bring them in, hand models to other programs.", no_args_is_help=True)

MODEL_HELP: Final = "Run folder, released VideoMAE file, or Hugging Face folder."
Source = Annotated[Path, typer.Argument(metavar="FILE", help=MODEL_HELP)]
Heads = Annotated[int | None, typer.Option(min=1, help="Heads of the encoder, where the file does not tell.")]
DecoderHeads = Annotated[int | None, typer.Option(min=1, help="Heads of the decoder, where the file does not tell.")]
TrainedFrames = Annotated[int | None, typer.Option(min=1, help="Frames of the clips that it was trained with.")]
TrainedSize = Annotated[int | None, typer.Option(min=1, help="Pixels of the clips that it was trained with.")]
Frames = Annotated[int | None, typer.Option(min=1, help="Frames of the clips wanted; positions are interpolated.")]
Size = Annotated[int | None, typer.Option(min=1, help="Pixels of the clips wanted; positions are interpolated.")]
ClassNames = Annotated[Path | None, typer.Option(help="File with a class name a line, in the order of the labels.")]


def _known(to: str) -> str:
    """ValueError where there is no such form to export to."""
    if to not in EXPORTS:
        raise ValueError(f"--to {to}: choose from {', '.join(EXPORTS)}")
    return to


@weights.command("inspect")
def inspect_file(
    file: Source,
    heads: Heads = None,
    decoder_heads: DecoderHeads = None,
    trained_frames: TrainedFrames = None,
    trained_size: TrainedSize = None,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor, by our name, with its shape.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON.")] = False,
) -> None:
    """Show what a checkpoint is: its model, what is not used, what had to be assumed. Nothing in it is executed.

    Example: `tubelet weights inspect videomae-base.pth`
    """
    from rich.console import Console

    from tubelet.cli.weights.table import facts, facts_table, tensors_table

    found = _read(file, _hints(heads, decoder_heads, trained_frames, trained_size))
    if as_json:
        typer.echo(json.dumps(facts(found, tensors=tensors), indent=1))
        return
    console = Console()
    console.print(facts_table(found))
    if tensors:
        console.print(tensors_table(found))


@weights.command("import")
def import_file(
    file: Source,
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder to make.")],
    heads: Heads = None,
    decoder_heads: DecoderHeads = None,
    trained_frames: TrainedFrames = None,
    trained_size: TrainedSize = None,
    frames: Frames = None,
    size: Size = None,
    class_names: ClassNames = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Replace the model that the folder holds.")] = False,
) -> None:
    """Make a run folder from a checkpoint, which every command takes as a trained model.

    Example: `tubelet weights import videomae-base.pth -o runs/published`
    """
    from tubelet.cli.weights.table import left_out
    from tubelet.disk.layout import MODEL_FOLDER
    from tubelet.weights.read import write_checkpoint

    if (out / MODEL_FOLDER).exists() and not fresh:
        raise ValueError(f"{out / MODEL_FOLDER}: is there already; choose another folder, or replace it with --fresh")
    hints = _hints(heads, decoder_heads, trained_frames, trained_size, class_names)
    found = _resized(_read(file, hints), frames, size)
    folder = write_checkpoint(found, out)
    _say(*found.notes, *left_out(found))
    typer.echo(f"{found.format}: {len(found.state)} tensors in {folder}; {_use(found, out)}")


@weights.command("export")
def export_model(
    model: Annotated[Path, typer.Argument(metavar="RUN", help=MODEL_HELP)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to make.")],
    to: Annotated[str, typer.Option("--to", callback=_known, help=f"For which program: {', '.join(EXPORTS)}.")],
    frames: Frames = None,
    size: Size = None,
    heads: Heads = None,
    decoder_heads: DecoderHeads = None,
    trained_frames: TrainedFrames = None,
    trained_size: TrainedSize = None,
    class_names: ClassNames = None,
) -> None:
    """Write a model for transformers, ONNX Runtime or `torch.export`, and check that it computes the same.

    Example: `tubelet weights export runs/fine -o exported --to onnx`
    """
    from tubelet.cli.weights.table import left_out

    hints = _hints(heads, decoder_heads, trained_frames, trained_size, class_names)
    found = _resized(_read(model, hints), frames, size)
    notes = (*found.notes, *left_out(found))
    _say(*notes, *EXPORTS[to](found, out))
    typer.echo(f"{out}: {', '.join(sorted(path.name for path in out.iterdir()))}")


def _hints(
    heads: int | None,
    decoder_heads: int | None,
    frames: int | None,
    size: int | None,
    class_names: Path | None = None,
) -> Hints:
    from tubelet.data.class_names import read_names
    from tubelet.weights.read import Hints

    names = None if class_names is None else read_names(class_names)
    return Hints(heads=heads, decoder_heads=decoder_heads, frames=frames, size=size, names=names)


def _read(path: Path, hints: Hints) -> Checkpoint:
    from tubelet.weights.read import read_model

    return read_model(path, hints)


def _resized(found: Checkpoint, frames: int | None, size: int | None) -> Checkpoint:
    from tubelet.types import ClipShape

    trained = found.recipe.clip
    try:
        return found.resized(ClipShape(frames=frames or trained.frames, size=size or trained.size))
    except ValueError as error:
        raise ValueError(f"{found.file}: {error}") from error


def _say(*lines: str) -> None:
    from tubelet.cli.terminal.watch import RichWatch

    watch = RichWatch()
    for line in lines:
        watch.say(line)


def _use(found: Checkpoint, out: Path) -> str:
    if found.has_head:
        return f"test it with tubelet evaluate {out}, use it with tubelet predict --from {out}"
    return f"train on with --start {out}, or use it with tubelet embed --from {out}"
