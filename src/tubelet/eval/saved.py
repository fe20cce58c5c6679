"""A fine-tuned classifier as it lies on disk: weights, recipe, names of its classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tubelet.eval.labels import Names, names_text, read_names
from tubelet.methods.classifier import Classifier
from tubelet.recipe import FinetuneRecipe, read_recipe
from tubelet.rng import step_rng
from tubelet.train.checkpoint import MODEL, fill, read_tensors
from tubelet.train.distributed import on_main
from tubelet.train.export import write_model
from tubelet.train.files import write_text
from tubelet.train.resume import MODEL_FOLDER, RECIPE

CLASSES: Final = "classes.txt"


@dataclass(frozen=True)
class SavedClassifier:
    """`classifier` is in eval mode on the CPU; `weights` is the file it came from."""

    classifier: Classifier
    recipe: FinetuneRecipe
    names: Names
    weights: Path


def load_classifier(run: Path) -> SavedClassifier:
    """Read a finished fine-tuning run, or its `model` folder. ValueError says what is missing or does not fit."""
    if not run.is_dir():
        raise ValueError(f"{run}: no such run folder")
    folder = run / MODEL_FOLDER if (run / MODEL_FOLDER).is_dir() else run
    weights = folder / MODEL
    if not weights.is_file() or not (folder / RECIPE).is_file():
        raise ValueError(
            f"{run}: no finished model in it ({MODEL_FOLDER}/{MODEL}); run tubelet finetune to its end first"
        )
    recipe = read_recipe(folder / RECIPE)
    if not isinstance(recipe, FinetuneRecipe):
        raise ValueError(f"{run}: a {recipe.kind} run has no classes; run tubelet finetune --start {run} first")
    names = read_names(folder / CLASSES)
    with step_rng(recipe.seed, 0):  # the weights are replaced; the caller's random state stays as it was
        classifier = recipe.model.build(recipe.clip, len(names))
    fill(classifier, read_tensors(weights), where=weights)
    return SavedClassifier(classifier.eval(), recipe, names, weights)


def write_classifier(out: Path, recipe: FinetuneRecipe, classifier: Classifier, names: Names) -> Path:
    """Write `model/` of the run folder `out`; returns it. The names come last: without them it is not finished."""
    folder = write_model(out, recipe, classifier.state_dict())
    write_class_names(folder, names)
    return folder


def write_class_names(folder: Path, names: Names) -> None:
    """Write the names, one a line in the order of the labels."""
    on_main(lambda: write_text(folder / CLASSES, names_text(names)))
