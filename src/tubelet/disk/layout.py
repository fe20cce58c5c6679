"""Where a run, a checkpoint or a folder keeps its weights, its recipe and the names of its classes.

RUN/recipe.yaml  classes.txt  teacher.json  evaluation/
RUN/model/       model.safetensors  recipe.yaml  classes.txt
RUN/checkpoints/step-00000120/
    model.safetensors  optimizer.safetensors  [average.safetensors]  state.json
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

MODEL_FILE: Final = "model.safetensors"
AVERAGE_FILE: Final = "average.safetensors"
OPTIMIZER_FILE: Final = "optimizer.safetensors"
STATE_FILE: Final = "state.json"
MODEL_FOLDER: Final = "model"
CHECKPOINTS: Final = "checkpoints"
EVALUATION_FOLDER: Final = "evaluation"
RECIPE_FILE: Final = "recipe.yaml"
CLASSES_FILE: Final = "classes.txt"
TEACHER_FILE: Final = "teacher.json"
_OTHERS: Final = (".safetensors", ".pth", ".pt", ".bin", ".pyth", ".ckpt")


def weights_file(path: Path) -> Path:
    """The file that holds the weights: of a finished run, of its newest checkpoint, of a folder with one, or itself.

    ValueError where there is none.
    """
    if not path.exists():
        raise ValueError(
            f"{path}: no such file or folder; give a run folder, a checkpoint folder or a .safetensors file"
        )
    if not path.is_dir():
        return path
    checkpoints = sorted(path.glob(f"{CHECKPOINTS}/step-*/{MODEL_FILE}"), key=lambda file: _step(file.parent))
    for file in (path / MODEL_FOLDER / MODEL_FILE, path / MODEL_FILE, *reversed(checkpoints)):
        if file.is_file():
            return file
    others = sorted(file for file in path.iterdir() if file.suffix in _OTHERS)
    hint = f"; give one of the files in it, such as {others[0]}" if others else ""
    places = f"no {MODEL_FOLDER}/{MODEL_FILE}, no {CHECKPOINTS}/step-*/{MODEL_FILE} and no {MODEL_FILE}"
    raise ValueError(f"{path}: holds {places}{hint}")


def beside(weights: Path, name: str) -> Path | None:
    """A file of a run that goes with its weights: in the same folder, or at the top of the run that they lie in."""
    weights = weights.absolute()  # a bare name has a run above it, too
    tops = [weights.parent]
    if weights.parent.name == MODEL_FOLDER:
        tops.append(weights.parent.parent)
    if weights.parent.parent.name == CHECKPOINTS:
        tops.append(weights.parent.parent.parent)
    return next((top / name for top in tops if (top / name).is_file()), None)


def _step(folder: Path) -> int:
    number = folder.name.removeprefix("step-")
    return int(number) if number.isdigit() else -1
