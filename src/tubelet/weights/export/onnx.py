"""ONNX files of encoder and classifier, checked against torch with onnxruntime."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

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

TOLERANCE: Final = 1e-4
PACKAGES: Final = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class OnnxExport:
    """What was written, and by how much outputs differ from torch's at most (absolute, clips of noise)."""

    files: tuple[Path, ...]
    largest_difference: float
    notes: tuple[str, ...] = ()


def to_onnx(found: Checkpoint, out: Path) -> OnnxExport:
    """Write the folder `out` with `encoder.onnx` and, where there is a head, `classifier.onnx`.

    Input `video`, uint8 [batch,3,T,H,W] with any batch and the T, H, W of the recipe (`found.resized` changes them);
    normalisation is inside. Outputs `tokens` [batch,N,D] and `pooled` [batch,D]; `logits` [batch,classes].
    Weights over 1.5 GB lie in a `.data` file beside. Every file is checked with `onnx.checker`, and run with
    onnxruntime on batches of 1 and 3: ValueError, and nothing is left on the disk, where an output differs from torch's
    by more than 1e-4 (of its largest value, where that is above 1), or where a package is missing.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"ONNX needs {', '.join(missing)}: pip install 'tubelet[onnx]'")
    clip = found.recipe.clip
    largest = 0.0
    with export_folder(out) as folder:
        for part in parts(found):
            file = folder / f"{part.name}.onnx"
            _write(part, clip, file)
            largest = max(largest, _compared(part, clip, file, out=out))
        write_classes(found, folder)
        names = sorted(path.name for path in folder.iterdir())
    return OnnxExport(tuple(out / name for name in names), largest)


def _write(part: ExportedPart, clip: ClipShape, file: Path) -> None:
    import onnx

    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            part.function,
            (noise(clip, batch=EXAMPLE_BATCH),),
            input_names=["video"],
            output_names=list(part.outputs),
            dynamic_shapes={"video": {0: "batch"}},
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        program.save(file)
    onnx.checker.check_model(str(file), full_check=True)


def _compared(part: ExportedPart, clip: ClipShape, file: Path, *, out: Path) -> float:
    """The largest difference over all outputs and sizes of batch."""
    import onnxruntime

    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session: Any = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    largest = 0.0
    for batch in BATCHES:
        video = noise(clip, batch=batch)
        with torch.inference_mode():
            ours = dict(zip(part.outputs, part.function(video), strict=True))
        theirs = session.run(list(part.outputs), {"video": video.numpy()})
        found = {name: torch.from_numpy(array) for name, array in zip(part.outputs, theirs, strict=True)}
        largest = max(largest, agree(found, ours, tolerance=TOLERANCE, what=f"{out / file.name}, run with onnxruntime"))
    return largest
