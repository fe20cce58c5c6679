"""`torch.export` programs of encoder and classifier: the model as a graph that needs torch and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch
from torch.export import Dim

from tubelet.disk.write import export_folder
from tubelet.types import ClipShape
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.export.portable import (
    BATCHES,
    EXAMPLE_BATCH,
    ExportedPart,
    agree,
    noise,
    parts,
    quiet,
    write_classes,
)

TOLERANCE: Final = 1e-6
"""The same kernels run; what is left is how a kernel cuts up its work."""


def to_program(found: Checkpoint, out: Path) -> tuple[str, ...]:
    """Write the folder `out` with `encoder.pt2` and, where there is a head, `classifier.pt2`; notes for the user.

    Input `video`, uint8 [batch,3,T,H,W] with any batch and the T, H, W of the recipe; normalisation is inside.
    Outputs (`tokens` [batch,N,D], `pooled` [batch,D]) and (`logits` [batch,classes],). Load with
    `torch.export.load(file).module()`. Every file is loaded back and compared on batches of 1 and 3: ValueError, and
    nothing is left on the disk, where an output differs.
    """
    with export_folder(out) as folder:
        for part in parts(found):
            file = folder / f"{part.name}.pt2"
            _write(part, found.recipe.clip, file)
            _compare(part, found.recipe.clip, file, out=out)
        write_classes(found, folder)
    return (f"made with torch {torch.__version__}; other versions may not load it",)


def _write(part: ExportedPart, clip: ClipShape, file: Path) -> None:
    video = noise(clip, batch=EXAMPLE_BATCH)
    with quiet(), torch.no_grad():
        program = torch.export.export(part.function, (video,), dynamic_shapes={"video": {0: Dim("batch", min=1)}})
        torch.export.save(program, file)


def _compare(part: ExportedPart, clip: ClipShape, file: Path, *, out: Path) -> None:
    with quiet(), torch.no_grad():
        loaded = torch.export.load(file).module()
        for batch in BATCHES:
            video = noise(clip, batch=batch)
            theirs = dict(zip(part.outputs, loaded(video), strict=True))
            ours = dict(zip(part.outputs, part.function(video), strict=True))
            agree(theirs, ours, tolerance=TOLERANCE, what=str(out / file.name))
