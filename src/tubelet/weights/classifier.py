"""A fine-tuned classifier as it lies on disk: weights, recipe, names of its classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tubelet.data.class_names import Names
from tubelet.disk.layout import CHECKPOINTS, MODEL_FILE, MODEL_FOLDER
from tubelet.methods.classifier import Classifier
from tubelet.recipe import FinetuneRecipe
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.read import read_model


@dataclass(frozen=True)
class SavedClassifier:
    """`classifier` is in eval mode on the CPU; `weights` is the file it came from, `notes` what was assumed of it."""

    classifier: Classifier
    recipe: FinetuneRecipe
    names: Names
    weights: Path
    notes: tuple[str, ...] = ()


def load_classifier(run: Path) -> SavedClassifier:
    """Read a finished fine-tuning run, or a classifier of another origin; classes without names get their numbers.

    ValueError says what is missing or does not fit.
    """
    found = read_classifier(run)
    return SavedClassifier(found.build_classifier(), found.with_classes(), found.class_names, found.file, found.notes)


def read_classifier(run: Path) -> Checkpoint:
    """The same before it is built, and its errors."""
    if not run.exists():
        raise ValueError(f"{run}: no such run folder")
    if run.is_dir() and (run / CHECKPOINTS).exists() and not (run / MODEL_FOLDER / MODEL_FILE).is_file():
        raise ValueError(
            f"{run}: no finished model in it ({MODEL_FOLDER}/{MODEL_FILE}); run tubelet finetune to its end first"
        )
    found = read_model(run)
    if not isinstance(found.recipe, FinetuneRecipe):
        raise ValueError(f"{run}: a {found.recipe.kind} run has no classes; run tubelet finetune --start {run} first")
    found.with_classes()
    return found


def names_of(classifier: Checkpoint) -> Names:
    """Of its classes; their numbers where they have none."""
    return classifier.class_names
