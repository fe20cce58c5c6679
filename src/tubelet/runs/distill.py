"""The teacher of a distillation: read, put in the order of the student's classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from tubelet.data.class_names import Names
from tubelet.data.label_space import normalised
from tubelet.methods.classifier import Classifier, Finetuning
from tubelet.methods.distillation import Distill, Distillation, Supervised, Teacher
from tubelet.recipe import FinetuneRecipe
from tubelet.runs.teacher_record import TeacherRecord, digest
from tubelet.spec import did_you_mean
from tubelet.train.distributed.process_group import on_main
from tubelet.train.records.watch import Watch
from tubelet.types import ClipShape
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.classifier import SavedClassifier, load_classifier, names_of


@dataclass(frozen=True)
class LoadedTeacher(TeacherRecord):
    """A teacher that can be asked, and which it is."""

    teacher: Teacher


def read_teacher(recipe: FinetuneRecipe, names: Names, watch: Watch) -> LoadedTeacher | None:
    """The teacher that `recipe.distill` names, its logits in the order of `names`; None where there is none to be.

    Any classifier that tubelet reads. ValueError in one line where it is missing, damaged or no classifier, has other
    classes, or takes clips of another number of frames. All ranks call this, and each holds the teacher whole.
    """
    if recipe.distill is None:
        return None
    saved = load_classifier(teacher_path(recipe.distill))
    columns = columns_of(saved.weights, saved.names, names)
    _check_frames(saved.weights, saved.recipe.clip.frames, recipe.clip)
    for line in (_words(saved, names, recipe.clip), *saved.notes):
        watch.say(f"teacher: {line}")
    sha256 = on_main(lambda: digest(saved.classifier.state_dict()))
    teacher = Teacher(saved.classifier, columns=columns)
    return LoadedTeacher(saved.weights, sha256, "--teacher", teacher)


def teacher_path(distill: Distill) -> Path:
    """Where the teacher is. ValueError where none is named, or nothing is there."""
    if distill.teacher is None:
        raise ValueError(
            "no teacher to learn from: give a fine-tuned run or a classifier's file with --teacher (recipe field "
            "distill.teacher), or in a recipe of stages the name of one (teacher: STAGE)"
        )
    path = Path(distill.teacher)
    if not path.exists():
        raise ValueError(f"{path}: no such teacher; give a fine-tuned run or a classifier's file with --teacher")
    return path


def check_taught(teacher: Checkpoint, names: Names, clip: ClipShape) -> None:
    """What `read_teacher` refuses of a classifier that is not built, or still to come."""
    columns_of(teacher.file, names_of(teacher), names)
    _check_frames(teacher.file, teacher.recipe.clip.frames, clip)


def method_of(classifier: Classifier, recipe: FinetuneRecipe, taught: LoadedTeacher | None) -> Supervised:
    """What trains the classifier: labels alone, or a teacher."""
    if recipe.distill is None or taught is None:
        return Finetuning(classifier, recipe.mixing, recipe.task)
    return Distillation(classifier, recipe.mixing, teacher=taught.teacher, distill=recipe.distill)


def columns_of(teacher: Path, known: Names, names: Names) -> Int[Tensor, " K"]:
    """For each of the student's classes its number among those that the teacher knows.

    By name, or equal where one side has no names; names are compared as `label_space.normalised` says. ValueError where
    they are not the same classes.
    """
    counts = f"{teacher}: the teacher has {len(known)} classes, the labels {len(names)}"
    if not (_are_words(known) and _are_words(names)):
        if len(known) != len(names):
            raise ValueError(f"{counts}; distillation needs a teacher of the same classes")
        return torch.arange(len(names))
    places = {normalised(name): number for number, name in enumerate(known)}
    missing = [name for name in names if normalised(name) not in places]
    if missing:
        near = did_you_mean(missing[0], known) if len(known) <= 50 else "its classes are others"
        raise ValueError(f"{counts}: {_some(missing)} of the labels it does not know; {near}")
    asked = {normalised(name) for name in names}
    surplus = [name for name in known if normalised(name) not in asked]
    if surplus or len(asked) != len(names) or len(places) != len(known):
        which = f"{_some(surplus)} of its classes is no label" if surplus else "some names are one class twice"
        raise ValueError(f"{counts}: {which}; distillation needs a teacher of the same classes")
    return torch.tensor([places[normalised(name)] for name in names])


def _check_frames(teacher: Path, frames: int, clip: ClipShape) -> None:
    """ValueError where a teacher that takes clips of `frames` frames is to see others."""
    if frames != clip.frames:
        raise ValueError(
            f"{teacher}: the teacher takes clips of {frames} frames, this recipe of {clip.frames}: "
            f"set clip.frames={frames}, or give a teacher for {clip.frames}"
        )


def _words(teacher: SavedClassifier, names: Names, clip: ClipShape) -> str:
    millions = sum(value.numel() for value in teacher.classifier.parameters()) / 1e6
    how = "name" if _are_words(teacher.names) and _are_words(names) else "number, for one side has no names"
    size = teacher.recipe.clip.size
    pixels = "" if size == clip.size else f"; it sees the clips resized from {clip.size} to {size} pixels"
    return f"{teacher.weights}, {millions:.2f} M parameters, {len(names)} classes matched by {how}{pixels}"


def _are_words(names: Names) -> bool:
    """Whether classes have names, not their numbers instead."""
    return names != tuple(str(number) for number in range(len(names)))


def _some(names: list[str]) -> str:
    return repr(names[0]) if len(names) == 1 else f"{names[0]!r} and {len(names) - 1} more"
