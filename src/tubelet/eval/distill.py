"""The teacher of a distillation: read, put in the order of the student's classes, known again when a run goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from tubelet.data.label_space import normalised
from tubelet.eval.saved import SavedClassifier, load_classifier
from tubelet.methods.classifier import Classifier, Finetuning
from tubelet.methods.distillation import Distillation, Supervised, Teacher
from tubelet.recipe import FinetuneRecipe
from tubelet.spec import did_you_mean
from tubelet.train.distributed import on_main
from tubelet.train.files import write_text
from tubelet.train.watch import Watch
from tubelet.types import ClipShape
from tubelet.weights.names import Names
from tubelet.weights.places import TEACHER_FILE


@dataclass(frozen=True)
class Taught:
    """A teacher that can be asked, the file that it came from, and the SHA-256 of its weights in whatever file."""

    teacher: Teacher
    file: Path
    sha256: str


def read_teacher(recipe: FinetuneRecipe, names: Names, watch: Watch) -> Taught | None:
    """The teacher that `recipe.distill` names, its logits in the order of `names`; None where there is none to be.

    Any classifier that tubelet reads. ValueError in one line where it is missing, damaged or no classifier, has other
    classes, or takes clips of another number of frames. All ranks call this, and each holds the teacher whole.
    """
    if recipe.distill is None:
        return None
    if recipe.distill.teacher is None:
        raise ValueError(
            "no teacher to learn from: give a fine-tuned run or a classifier's file with --teacher "
            "(recipe field distill.teacher)"
        )
    path = Path(recipe.distill.teacher)
    if not path.exists():
        raise ValueError(f"{path}: no such teacher; give a fine-tuned run or a classifier's file with --teacher")
    saved = load_classifier(path)
    columns = columns_of(saved, names)
    _check_frames(saved, recipe.clip)
    for line in (_words(saved, names, recipe.clip), *saved.notes):
        watch.say(f"teacher: {line}")
    sha256 = on_main(lambda: digest(saved.classifier.state_dict()))
    return Taught(Teacher(saved.classifier, columns=columns), saved.weights, sha256)


def method_of(classifier: Classifier, recipe: FinetuneRecipe, taught: Taught | None) -> Supervised:
    """What trains the classifier: labels alone, or a teacher."""
    if recipe.distill is None or taught is None:
        return Finetuning(classifier, recipe.mixing)
    return Distillation(classifier, recipe.mixing, teacher=taught.teacher, distill=recipe.distill)


def check_teacher(out: Path, taught: Taught | None) -> None:
    """ValueError where the run at `out` was begun with a teacher of other weights. Where they lie does not matter."""
    path = out / TEACHER_FILE
    if taught is None or not path.is_file():
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: damaged; put it back, or start again with --fresh") from error
    if before != taught.sha256:
        raise ValueError(
            f"{path}: the run there was begun with another teacher than {taught.file}; give that one with --teacher, "
            "or start again with --fresh or another --out"
        )


def write_teacher(out: Path, taught: Taught | None) -> None:
    """Write down in the run folder which teacher it has."""
    if taught is None:
        return
    text = json.dumps({"file": str(taught.file), "sha256": taught.sha256}, indent=1) + "\n"
    on_main(lambda: write_text(out / TEACHER_FILE, text))


def columns_of(teacher: SavedClassifier, names: Names) -> Int[Tensor, " K"]:
    """For each of the student's classes its number among the teacher's: by name, or equal where one side has no names.

    Names are compared as `label_space.normalised` says. ValueError where they are not the same classes.
    """
    counts = f"{teacher.weights}: the teacher has {len(teacher.names)} classes, the labels {len(names)}"
    if not (_are_words(teacher.names) and _are_words(names)):
        if len(teacher.names) != len(names):
            raise ValueError(f"{counts}; distillation needs a teacher of the same classes")
        return torch.arange(len(names))
    places = {normalised(name): number for number, name in enumerate(teacher.names)}
    missing = [name for name in names if normalised(name) not in places]
    if missing:
        near = did_you_mean(missing[0], teacher.names) if len(teacher.names) <= 50 else "its classes are others"
        raise ValueError(f"{counts}: {_some(missing)} of the labels it does not know; {near}")
    known = {normalised(name) for name in names}
    surplus = [name for name in teacher.names if normalised(name) not in known]
    if surplus or len(known) != len(names) or len(places) != len(teacher.names):
        which = f"{_some(surplus)} of its classes is no label" if surplus else "some names are one class twice"
        raise ValueError(f"{counts}: {which}; distillation needs a teacher of the same classes")
    return torch.tensor([places[normalised(name)] for name in names])


def digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, kinds, shapes and bytes of tensors, in the order of their names."""
    sums = hashlib.sha256()
    for name, value in sorted(state.items()):
        sums.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        sums.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return sums.hexdigest()


def _check_frames(teacher: SavedClassifier, clip: ClipShape) -> None:
    frames = teacher.recipe.clip.frames
    if frames != clip.frames:
        raise ValueError(
            f"{teacher.weights}: the teacher takes clips of {frames} frames, this recipe of {clip.frames}: "
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
