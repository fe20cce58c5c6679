"""`tubelet reconstruct`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def reconstruct(
    video: Annotated[Path, typer.Argument(help="Video file.")],
    run: Annotated[Path, typer.Option("--from", help="Pre-training run, finished or not.")],
    changes: Annotated[
        list[str] | None, typer.Argument(help="Changes to the run's recipe, such as mask.ratio=0.75.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG strip of frames.")] = Path("strip.png"),
    mp4: Annotated[Path | None, typer.Option(help="Also a video, side by side.")] = None,
    gif: Annotated[Path | None, typer.Option(help="Also a GIF, side by side.")] = None,
    frames: Annotated[int, typer.Option(min=1, help="Frames in the strip, at most those that are predicted.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the mask.")] = 0,
    true_statistics: Annotated[
        bool,
        typer.Option(
            "--true-statistics",
            help="Colours of hidden cubes from the original, as the authors' script does; for normalised pixels.",
        ),
    ] = False,
) -> None:
    """Show what a pre-trained model sees of a video and what it fills in: original, masked, reconstructed.

    Example: `tubelet reconstruct clip.mp4 --from runs/pre -o strip.png --mp4 side-by-side.mp4`
    """
    from tubelet.pictures import reconstruct as work
    from tubelet.pictures.strips import refuse_unwritable, side_by_side, strip, write_gif, write_mp4, write_png
    from tubelet.video.read.frame_range import is_there

    for path, ending, option in ((out, ".png", "-o"), (mp4, ".mp4", "--mp4"), (gif, ".gif", "--gif")):
        if path is not None and path.suffix.lower() != ending:
            raise ValueError(f"{path}: this output is a {ending} file")
        if path is not None:
            refuse_unwritable(path, option)
    if not is_there(video):
        raise ValueError(f"{video}: no such video file")
    saved = work.load_autoencoder(run, changes)
    if true_statistics and not work.takes_statistics(saved.recipe.target):
        kind = saved.recipe.target.kind
        raise ValueError(f"{run}: --true-statistics gives colours to normalised pixels, not to {kind}; leave it out")
    found = work.reconstruct(video, saved, seed=seed, true_statistics=true_statistics)
    write_png(strip(found, frames=frames), out)
    moving = side_by_side(found) if mp4 or gif else []
    if mp4:
        write_mp4(moving, mp4)
    if gif:
        write_gif(moving, gif)
    typer.echo(f"{found.hidden_ratio:.0%} of the cubes hidden, loss {found.loss:.4f} ({saved.weights})")
    typer.echo("\n".join(str(path) for path in (out, mp4, gif) if path))
