"""The folders of a progressive run: which stages are finished there, and whether they are those of the recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tubelet.disk.integrity import sums_of
from tubelet.disk.layout import CLASSES_FILE, MODEL_FILE, MODEL_FOLDER, RECIPE_FILE
from tubelet.disk.write import write_text
from tubelet.recipe import ProgressiveRecipe, SingleRun, read_recipe
from tubelet.spec import did_you_mean, replace
from tubelet.train.checkpoint.folder import latest
from tubelet.train.checkpoint.resume import changed_fields, listed, remove_work

SEAL: Final = "stage.json"
"""What a stage started from and learnt from, in its folder."""
_NEEDED: Final = {"start": "starts from", "teacher": "learns from"}
LEARNT: Final = "run.batch_size"
"""The one field of `run` that what was learnt depends on."""


@dataclass(frozen=True)
class Step:
    """A stage where it runs. `start` and `teacher` are folders of stages that it starts and learns from.

    None where its recipe says from what, if from anything.
    """

    name: str
    number: int
    recipe: SingleRun
    folder: Path
    start: Path | None
    teacher: Path | None
    evaluate: bool | str

    @property
    def needs(self) -> dict[str, Path]:
        """Folders of earlier stages that it needs, by what for; the words are keys of its seal."""
        both = {"start": self.start, "teacher": self.teacher}
        return {what: folder for what, folder in both.items() if folder is not None}

    @property
    def is_finished(self) -> bool:
        """Whether its model is whole: the names of the classes are written last."""
        model = self.folder / MODEL_FOLDER
        names = not self.recipe.gives_classes or (model / CLASSES_FILE).is_file()
        return (model / MODEL_FILE).is_file() and names

    @property
    def is_begun(self) -> bool:
        """Whether there is work to go on from."""
        return latest(self.folder) is not None


def steps_of(recipe: ProgressiveRecipe, out: Path) -> tuple[Step, ...]:
    """The stages of a recipe that `resolved` gave, each with its folder and with what it starts from in its recipe."""
    folders = [out / f"{number}-{stage.name}" for number, stage in enumerate(recipe.stages, start=1)]
    steps = []
    for place, (stage, folder) in enumerate(zip(recipe.stages, folders, strict=True)):
        start, teacher = (
            None if before is None else folders[before] for before in (recipe.start_of(place), recipe.teacher_of(place))
        )
        own = stage.filled
        if start is not None:
            own = replace(own, start=_path_of(start, folder))
        if teacher is not None:
            own = own.with_teacher(str(teacher))
        steps.append(Step(stage.name, place + 1, own, folder, start, teacher, stage.evaluate))
    return tuple(steps)


def first_to_redo(steps: tuple[Step, ...], *, fresh: bool, redo: str | None) -> int:
    """From which place on work is removed; their number for none. ValueError for a name that no stage has."""
    if fresh:
        return 0
    if redo is None:
        return len(steps)
    names = [step.name for step in steps]
    if redo not in names:
        raise ValueError(f"no stage is called {redo!r}; {did_you_mean(redo, names)}")
    return names.index(redo)


def check_kept(steps: Sequence[Step]) -> None:
    """ValueError in one line where a folder holds work of another recipe, or work on weights that are not there."""
    folders = {step.folder: step for step in steps}
    for step in steps:
        if not step.is_finished and not step.is_begun:
            continue
        again = f"redo it and what follows with --from {step.name}, or choose another --out"
        changes = _changes(step)
        if changes:
            state = "finished" if step.is_finished else "begun"
            raise ValueError(f"{step.folder}: this stage was {state} with another recipe: {listed(changes)}; {again}")
        _check_needs(step, folders, again)


def _check_needs(step: Step, folders: Mapping[Path, Step], again: str) -> None:
    sealed = _sealed(step)
    for what, folder in step.needs.items():
        if not folders[folder].is_finished:
            raise ValueError(f"{step.folder}: work is here, but {folder}, which it {_NEEDED[what]}, has none; {again}")
        if what not in sealed and what == "start":
            continue  # begun before there were seals
        if what not in sealed:
            raise ValueError(f"{step.folder}: was not begun with {folder}, which it {_NEEDED[what]}; {again}")
        if sealed[what] != _seal(folder):
            raise ValueError(
                f"{step.folder}: was begun with other weights than {folder}, which it {_NEEDED[what]}, holds by now; "
                f"{again}"
            )


def clear(steps: Sequence[Step]) -> None:
    """Remove the work of these stages, the last one first, so that none is left without what it starts from."""
    for step in reversed(steps):
        if step.folder.exists():
            remove_work(step.folder)
            (step.folder / SEAL).unlink(missing_ok=True)


def write_seal(step: Step) -> None:
    """Note in the folder of a stage that is about to begin what it needs of others."""
    if step.is_begun:
        return
    (step.folder / SEAL).unlink(missing_ok=True)
    if step.needs:
        step.folder.mkdir(parents=True, exist_ok=True)
        seal = {what: {"stage": folder.name, "sha256": _seal(folder)} for what, folder in step.needs.items()}
        write_text(step.folder / SEAL, json.dumps(seal, indent=1) + "\n")


def _path_of(start: Path, folder: Path) -> str:
    """The path of a start; where its stage has begun, the path it had then, for all of OUT may have been moved."""
    kept = _kept_recipe(folder) if latest(folder) is not None or (folder / MODEL_FOLDER).exists() else None
    if kept is not None and kept.start is not None and Path(kept.start).name == start.name:
        return kept.start
    return str(start)


def _kept_recipe(folder: Path) -> SingleRun | None:
    path = folder / RECIPE_FILE
    return read_recipe(path) if path.is_file() else None


def _changes(step: Step) -> dict[str, tuple[Any, Any]]:
    kept, now = _kept_recipe(step.folder), step.recipe
    if kept is None:
        return {}
    changes = changed_fields(kept.model_dump(mode="json"), now.with_counts_of(kept))
    if step.is_finished:  # a later stage may well run on another machine
        changes = {name: both for name, both in changes.items() if name == LEARNT or not name.startswith("run.")}
        if step.teacher is None and kept.teacher != now.teacher:  # a run that goes on compares weights; not this one
            changes["teacher"] = (kept.teacher, now.teacher)
    return changes


def _seal(needed: Path) -> str:
    file = needed / MODEL_FOLDER / MODEL_FILE
    return str(sums_of([file], folder=file.parent)[MODEL_FILE]["sha256"])


def _sealed(step: Step) -> dict[str, str]:
    """SHA-256 of what the stage began with, by what for; a file of an older version has that of its start."""
    path = step.folder / SEAL
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if isinstance(found.get("start"), str):
            found = {"start": found}
        return {what: str(one["sha256"]) for what, one in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: damaged; redo the stage and what follows with --from {step.name}") from error
