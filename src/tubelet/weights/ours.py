"""Files of our own: runs and their checkpoints, with their recipe beside them, and tensors without one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tubelet.data.class_names import read_names
from tubelet.disk.layout import AVERAGE_FILE, CLASSES_FILE, MODEL_FILE, RECIPE_FILE, beside
from tubelet.disk.tensors import State
from tubelet.recipe import encoder_run, read_recipe
from tubelet.weights.checkpoint import Checkpoint, Undescribed, Weights
from tubelet.weights.slowfast import recipe as multiscale
from tubelet.weights.slowfast.spec import is_multiscale
from tubelet.weights.tensors.files import OpenedWeights
from tubelet.weights.tensors.given import Given
from tubelet.weights.tensors.rename import name_now
from tubelet.weights.videomae import recipe as plain

EMBEDDING: Final = "encoder.patch_embed.weight"
WRAPPER: Final = "classifier."
"""In front of all names where a fine-tuning method was saved whole: the checkpoints of a run."""
WORDS: Final = {"pretrain": "pre-training run", "finetune": "fine-tuned classifier"}


def matches(opened: OpenedWeights) -> bool:
    """Whether the tensors have names of ours, which are those of no other format."""
    return EMBEDDING in _without_wrapper(opened.tensors)


def read(opened: OpenedWeights) -> Weights:
    """With recipe and class names where they lie beside the file, or at the top of the run that it is of."""
    file = opened.file
    state = {name_now(name): tensor for name, tensor in _without_wrapper(opened.content.state).items()}
    recipe_file, names_file = beside(file, RECIPE_FILE), beside(file, CLASSES_FILE)
    names = None if names_file is None else read_names(names_file)
    if recipe_file is None:
        family = multiscale if is_multiscale(state) else plain
        return Undescribed(
            file, "tubelet weights without a recipe", state, family.describe, family.clip_of, Given(file), names=names
        )
    recipe = encoder_run(read_recipe(recipe_file), str(file))
    what = WORDS.get(recipe.kind, f"{recipe.kind} run")
    return Checkpoint(file, f"tubelet {what}", state, recipe, names, notes=_average_note(file))


def _average_note(file: Path) -> tuple[str, ...]:
    average = file.parent / AVERAGE_FILE
    if file.name != MODEL_FILE or not average.is_file():
        return ()
    return (f"the run is not finished; its averaged weights are in {average}",)


def _without_wrapper(state: State) -> State:
    if not all(name.startswith(WRAPPER) for name in state):
        return state
    return {name.removeprefix(WRAPPER): tensor for name, tensor in state.items()}
