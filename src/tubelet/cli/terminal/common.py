"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import typer

RECIPE_HELP: Final = "Name of a recipe (tubelet recipes list) or a YAML file."
CHANGES_HELP: Final = "Changes to the recipe: field=value, such as run.batch_size=64 mask=random."

Recipe = Annotated[str, typer.Argument(help=RECIPE_HELP)]
Changes = Annotated[list[str] | None, typer.Argument(help=CHANGES_HELP)]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Run folder; runs/RECIPE where not given.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start again in a run folder that holds work.")]
Frames = Annotated[int | None, typer.Option(min=1, help="Frames of a clip; the model's by default.")]
Size = Annotated[int | None, typer.Option(min=1, help="Pixels of a clip; the model's by default.")]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")]
Precision = Annotated[
    Literal["auto", "bf16", "fp32"], typer.Option(help="Numbers to compute in; auto: bf16 where it is quick.")
]
Pool = Annotated[
    Literal["mean", "change"], typer.Option(help="A clip's vector: the mean of its tokens, or their change over time.")
]
Inflated = Annotated[
    Literal["centre", "mean"] | None,
    typer.Option("--inflate", help="Frames that the kernel of an image model goes to: the middle one, or all alike."),
]
Root = Annotated[Path | None, typer.Option(help="Folder that the paths of a list start from.")]
MaxSkipped = Annotated[float, typer.Option(min=0, max=1, help="Largest share of unreadable videos.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where the run folder stands (this is the default).")]
