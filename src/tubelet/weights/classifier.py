"""A fine-tuned classifier as it lies on disk: weights, recipe, names of its classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tubelet.data.class_names import Names
from tubelet.disk.layout import CHECKPOINTS, MODEL_FILE, MODEL_FOLDER
from tubelet.methods.classifier import Classifier
from tubelet.recipe import FinetuneRecipe
from tubelet.weights.imported import Imported
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
    imported = read_classifier(run)
    recipe, names = imported.with_classes(), names_of(imported)
    return SavedClassifier(imported.build_classifier(), recipe, names, imported.file, imported.notes)


def read_classifier(run: Path) -> Imported:
    """The same before it is built, and its errors."""
    if not run.exists():
        raise ValueError(f"{run}: no such run folder")
    if run.is_dir() and (run / CHECKPOINTS).exists() and not (run / MODEL_FOLDER / MODEL_FILE).is_file():
        raise ValueError(
            f"{run}: no finished model in it ({MODEL_FOLDER}/{MODEL_FILE}); run tubelet finetune to its end first"
        )
    imported = read_model(run)
    if not isinstance(imported.recipe, FinetuneRecipe):
        raise ValueError(
            f"{run}: a {imported.recipe.kind} run has no classes; run tubelet finetune --start {run} first"
        )
    imported.with_classes()
    return imported


def names_of(classifier: Imported) -> Names:
    """Of its classes; their numbers where they have none."""
    return classifier.names or tuple(str(label) for label in range(len(classifier.state["head.bias"])))
