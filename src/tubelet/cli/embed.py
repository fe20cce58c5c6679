"""`tubelet embed`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tubelet.cli.terminal.common import Device, Frames, MaxSkipped, Pool, Precision, Root, Size
from tubelet.inference.progress import Quiet
from tubelet.names import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tubelet.inference.embed.embed import Embedded, Settings
    from tubelet.inference.model import Model
    from tubelet.inference.progress import Progress
    from tubelet.video.lists.manifest import Manifest

WINDOW_HELP: Final = "Seconds of video per clip; as in the model's training by default."
STEP_HELP: Final = "Seconds from one clip to the next; no gap and no overlap by default."


def embed(
    source: Annotated[Path, typer.Argument(help="Folder of videos, a list (txt, csv, jsonl), or one video.")],
    model: Annotated[Path, typer.Option("--from", help="Run folder, checkpoint, or published weights.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Parquet file.")] = Path("embeddings.parquet"),
    root: Root = None,
    window: Annotated[float | None, typer.Option(min=0.001, help=WINDOW_HELP)] = None,
    step: Annotated[float | None, typer.Option(min=0.001, help=STEP_HELP)] = None,
    frames: Frames = None,
    size: Size = None,
    batch: Annotated[int, typer.Option(min=1, help="Clips in a pass.")] = 16,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads that decode; one per core by default.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Processes on this machine, such as one per GPU.")] = 1,
    shard: Annotated[str, typer.Option(help="I/N: do part I (from 0) of N; the last to finish joins them.")] = "0/1",
    device: Device = "auto",
    precision: Precision = "fp32",
    pool: Pool = "mean",
    max_skipped: MaxSkipped = 0.25,
    fresh: Annotated[bool, typer.Option("--fresh", help="Throw away what is at OUT and start again.")] = False,
    leader: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Write a vector for every clip of every video: path, clip, start and end in seconds, vector.

    A run that was stopped or killed goes on where it was. Unreadable videos are listed in OUT.skipped.csv.

    Example: `tubelet embed videos/ --from runs/pre -o embeddings.parquet --window 2 --step 1`
    """
    from tubelet.doctor.machine import cores
    from tubelet.inference.embed.embed import Settings
    from tubelet.inference.embed.windows import Windows
    from tubelet.inference.model import load

    settings = Settings(
        windows=Windows(seconds=window, step_seconds=step),
        batch=batch,
        threads=workers or max(1, cores() // processes),
        shard=_shard(shard, processes),
        max_skipped=max_skipped,
        fresh=fresh,
        leader=leader,
    )
    if processes > 1:
        manifest = _manifest(source, root, frames or _clip_frames(model))
        given: dict[str, object] = {"--from": model, "--device": device, "--precision": precision, "--pool": pool}
        given |= {"--frames": frames, "--size": size, "--root": root}
        result = _shared(manifest, out, settings, [*_words(given), "--", str(source)], processes)
    else:
        loaded = load(model, frames=frames, size=size, device=device, precision=precision, pooling=pool)
        manifest = _manifest(source, root, loaded.clip.frames)
        result = _alone(manifest, out, settings, loaded)
    typer.echo(_summary(result, out, settings))


def _clip_frames(model: Path) -> int:
    from tubelet.weights.read import read_model

    return read_model(model).recipe.clip.frames


def _manifest(source: Path, root: Path | None, clip_frames: int) -> Manifest:
    from tubelet.video.lists.manifest import read_manifest

    return read_manifest(source, root=root, labelled=False, clip_frames=clip_frames)


def _alone(manifest: Manifest, out: Path, settings: Settings, model: Model) -> Embedded:
    from tubelet.cli.terminal.progress import RichProgress
    from tubelet.inference.embed.embed import Stopped
    from tubelet.inference.embed.embed import embed as work

    rich = RichProgress()
    progress: Progress = rich if settings.leader is None else _Notes()
    for note in (*model.notes, *manifest.notes):
        progress.say(note)
    try:
        return work(model, manifest, out, settings, progress)
    except Stopped as stop:
        rich.say(str(stop))
        raise typer.Exit(128 + stop.signal) from None


def _shared(manifest: Manifest, out: Path, settings: Settings, choice: list[str], processes: int) -> Embedded:
    from tubelet.cli.terminal.progress import RichProgress
    from tubelet.inference.embed.embed import Stopped, open_units
    from tubelet.inference.embed.processes import Helper, embed_in_processes, share_of_machine

    gpus = _gpus(choice)
    helpers = [
        Helper(_command(out, settings, choice, f"{shard}/{processes}"), share_of_machine(shard, processes, gpus=gpus))
        for shard in range(processes)
    ]
    progress = RichProgress()
    try:
        return embed_in_processes(helpers, manifest, open_units(out, settings), settings, progress)
    except Stopped as stop:
        progress.say(str(stop))
        raise typer.Exit(128 + stop.signal) from None


def _command(out: Path, settings: Settings, choice: list[str], shard: str) -> tuple[str, ...]:
    """The command of a helper; `choice` ends with what to embed."""
    import os
    import sys

    options = {
        "--out": out,
        "--window": settings.windows.seconds,
        "--step": settings.windows.step_seconds,
        "--batch": settings.batch,
        "--workers": settings.threads,
        "--max-skipped": settings.max_skipped,
        "--shard": shard,
        "--leader": os.getpid(),
    }
    return (sys.executable, "-m", "tubelet", "embed", *_words(options), *choice)


def _words(options: Mapping[str, object]) -> list[str]:
    """Options as a command takes them, without those that are None."""
    return [word for name, value in options.items() if value is not None for word in (name, str(value))]


def _gpus(choice: list[str]) -> int:
    import torch

    return 0 if choice[choice.index("--device") + 1] == "cpu" else torch.cuda.device_count()


def _shard(text: str, processes: int) -> tuple[int, int]:
    index, _, shards = text.partition("/")
    if not (index.isdigit() and shards.isdigit()):
        raise ValueError(f"--shard {text}: write it as I/N, such as 0/4 for the first of four")
    if processes > 1 and text != "0/1":
        raise ValueError("--shard and --processes exclude each other: a shard is one process")
    return int(index), int(shards)


def _summary(result: Embedded, out: Path, settings: Settings) -> str:
    from tubelet.inference.embed.work_units import skipped_file

    rate = f" ({result.clips / result.seconds:.1f} clips/s)" if result.clips else ""
    done = f"{result.clips:,} clips in {result.seconds:.1f} s{rate}"
    if result.out is None:
        return f"shard {settings.shard[0]}/{settings.shard[1]}: {done}; other shards have still to finish"
    skipped = f"{len(result.skipped)} skipped ({skipped_file(out)})" if result.skipped else "none skipped"
    return f"{result.rows:,} clips of {result.videos:,} videos, {skipped}\nthis run: {done}\nembeddings: {result.out}"


class _Notes(Quiet):
    """What a helper tells the process that started it: notes on stderr, no bar."""

    def say(self, line: str) -> None:
        typer.echo(one_line(line), err=True)
