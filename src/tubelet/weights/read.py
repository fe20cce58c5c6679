"""The one entrance for models of every origin, and the way into a run folder of ours."""

from __future__ import annotations

from pathlib import Path

from tubelet.data.class_names import names_text
from tubelet.disk.layout import CHECKPOINTS, CLASSES_FILE, MODEL_FILE, MODEL_FOLDER, RECIPE_FILE
from tubelet.disk.tensors import write_tensors
from tubelet.disk.write import is_disk_full, new_folder, write_text
from tubelet.recipe import write_recipe
from tubelet.weights.checkpoint import Checkpoint, Weights
from tubelet.weights.formats import FORMATS
from tubelet.weights.huggingface.config import CONFIG, read_json
from tubelet.weights.tensors.files import OpenedWeights
from tubelet.weights.tensors.given import Hints
from tubelet.weights.tensors.rename import unwrapped
from tubelet.weights.tensors.unsupported import refusal

__all__ = ["Hints", "read_model", "read_weights", "write_checkpoint"]


def read_model(path: Path, hints: Hints = Hints()) -> Checkpoint:
    """Read a model of any origin: a run of ours, a released file, a Hugging Face folder; `FORMATS` has them all.

    `path` is a run, model or checkpoint folder, or a file. `hints` are facts that its file does not hold; where it
    does, they must agree. Every tensor has been checked against the model. Nothing in a file is executed. ValueError in
    one line where it is missing, damaged, of another model, or wants to run code.
    """
    found = read_weights(path).described(hints)
    found.check()
    return found


def read_weights(path: Path) -> Weights:
    """The same before its tensors are checked, and without a recipe where the file has none: to start a run from.

    Errors are those of `read_model`.
    """
    opened = OpenedWeights(path)
    for form in FORMATS.values():
        if form.matches(opened):
            return form.read(opened)
    if (opened.folder / CONFIG).is_file():
        read_json(opened.folder / CONFIG)  # ValueError where it is damaged
    state = opened.content.state  # ValueError where it holds no tensors
    raise ValueError(refusal({short: state[name] for short, name in unwrapped(state).items()}, opened.file))


def write_checkpoint(found: Checkpoint, out: Path) -> Path:
    """Write the model as a finished run of ours, whole or not at all; returns its folder `out/model`.

    What stands at `out/model` is replaced. Classes without names get their numbers. ValueError where `out` holds
    checkpoints of a run, or cannot be written.
    """
    if (out / CHECKPOINTS).exists():
        raise ValueError(f"{out}: holds the checkpoints of a training run; choose another folder")
    folder = out / MODEL_FOLDER
    try:
        with new_folder(folder) as temporary:
            write_tensors(found.state, temporary / MODEL_FILE)
            write_recipe(found.recipe, temporary / RECIPE_FILE)
            if found.has_head:
                write_text(temporary / CLASSES_FILE, names_text(found.class_names))
    except OSError as error:
        reason = "no space left on the disk" if is_disk_full(error) else error.strerror or str(error)
        raise ValueError(f"{out}: cannot be written ({reason}); choose another folder") from error
    return folder
