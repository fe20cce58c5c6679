"""Whether a run folder holds work that a run can go on from."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from tubelet.disk.layout import CHECKPOINTS, EVALUATION_FOLDER, MODEL_FOLDER, RECIPE_FILE, TEACHER_FILE
from tubelet.disk.lock import only_run_in
from tubelet.disk.tables import SKIPPED
from tubelet.disk.write import open_folder
from tubelet.names import writable
from tubelet.recipe import SingleRun
from tubelet.train.checkpoint import folder as checkpoint
from tubelet.train.distributed.process_group import on_main
from tubelet.train.records.log import LOG, TENSORBOARD
from tubelet.train.records.metric_buffer import NON_FINITE

_FOLDERS: Final = (CHECKPOINTS, TENSORBOARD, MODEL_FOLDER, EVALUATION_FOLDER)
FREE: Final = frozenset(
    {
        *("name", "data.workers", "data.cache", "data.max_skipped", "run.log_every", "run.save_every", "run.keep"),
        *("data.max_seconds_per_file", "run.parallel", "run.lost_after_seconds", "run.compile"),
        *("distill.teacher", "target.teacher"),
    }
)
"""Fields that may change between two parts of one run: no number in it depends on them, or, where processes share the
work in another way or blocks are compiled, by rounding alone. A teacher may have moved: its weights are compared. The
same fields of further streams may change, too."""
_INSIDE: Final = re.compile(r"^streams\.\w+\.|\.\d+(?=\.)")
"""The stream, or the place of one of several targets, in the name of a field."""


def prepare(out: Path, *, fresh: bool) -> None:
    """Make the run folder ready to write, without leftovers of a killed process; with `fresh` without any work in it.

    ValueError where it cannot be written, its path is not UTF-8, or another process trains there. Only what runs write
    is removed.
    """
    on_main(lambda: _prepare(out, fresh=fresh))


def _prepare(out: Path, *, fresh: bool) -> None:
    if writable(str(out)) != str(out):  # safetensors and TensorBoard take no such path
        raise ValueError(f"{out}: the path of a run folder must be UTF-8; choose another with --out")
    open_folder(out)
    with only_run_in(out):
        checkpoint.clean(out)
        if fresh:
            remove_work(out)


def check_apart(out: Path, needed: Mapping[str, str | None]) -> None:
    """ValueError where a new run in this folder would replace weights that it needs, by the option that names them."""
    here = out.resolve()
    for option, given in needed.items():
        where = None if given is None else Path(given).resolve()
        if where is not None and (where == here or any(where.is_relative_to(here / one) for one in _FOLDERS)):
            raise ValueError(f"{given}: {option} lies in {out}, where this run would replace it; choose another --out")


def remove_work(out: Path) -> None:
    """Remove what runs write in a run folder, and nothing else."""
    for folder in _FOLDERS:
        if (out / folder).exists():
            shutil.rmtree(out / folder)
    for file in (LOG, SKIPPED, RECIPE_FILE, NON_FINITE, TEACHER_FILE):
        (out / file).unlink(missing_ok=True)


def find(out: Path, recipe: SingleRun, say: Callable[[str], None]) -> Path | None:
    """The folder of the checkpoint to go on from, None where the run has none.

    A damaged one is put aside, and `say` gets a line that names the damaged file and the step to go back to. ValueError
    where none is whole, or it was made with a recipe that differs in more than the fields `FREE`.
    """
    name = on_main(lambda: _find(out, recipe, say))
    return out / CHECKPOINTS / name if name else None


def _find(out: Path, recipe: SingleRun, say: Callable[[str], None]) -> str:
    folder, damaged = checkpoint.newest_whole(out)
    if folder is None:
        if not damaged:
            return ""
        raise ValueError(
            f"{next(iter(damaged.values()))}; no older checkpoint is whole: start again with --fresh, or restore it"
        )
    _check_recipe(out, checkpoint.read_state(folder), recipe)
    for bad, why in damaged.items():
        aside = checkpoint.put_aside(bad)
        say(f"DAMAGED CHECKPOINT: {why}; kept as {aside.name}; going back to {folder.name}")
    return folder.name


def _check_recipe(out: Path, state: Mapping[str, Any], recipe: SingleRun) -> None:
    differing = changed_fields(state.get("recipe", {}), recipe)
    if differing:
        raise ValueError(
            f"{out} holds a run of another recipe, at step {state['step']}: {listed(differing)}; "
            "start again there with --fresh, or choose another folder with --out"
        )


def changed_fields(before: Mapping[str, Any], recipe: SingleRun) -> dict[str, tuple[Any, Any]]:
    """Old and new value of each field that differs from a stored recipe, but for the fields `FREE`."""
    old, new = _flat(_completed(before, recipe)), _flat(recipe.model_dump(mode="json"))
    names = [name for name in sorted(old.keys() | new.keys()) if _INSIDE.sub("", name) not in FREE]
    return {name: (old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)}


def listed(changes: Mapping[str, tuple[Any, Any]]) -> str:
    """The first changes in words."""
    words = ", ".join(f"{name} ({old} -> {new})" for name, (old, new) in list(changes.items())[:8])
    return words + (f" and {len(changes) - 8} more" if len(changes) > 8 else "")


def _completed(fields: Mapping[str, Any], recipe: SingleRun) -> Mapping[str, Any]:
    """A stored recipe with the defaults of fields that came after it was stored."""
    try:
        return type(recipe).model_validate(fields).model_dump(mode="json")
    except ValidationError:  # of another kind or time: compared as it stands
        return fields


def _flat(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields by dotted names; the place in a list of parts is one of them."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
            flat |= _flat({str(place): one for place, one in enumerate(value)}, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return flat
