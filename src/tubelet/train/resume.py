"""Whether a run folder holds work that a run can go on from."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tubelet.recipe import FinetuneRecipe, PretrainRecipe
from tubelet.train import checkpoint
from tubelet.train.files import only_run_in, open_folder
from tubelet.train.log import LOG, TENSORBOARD
from tubelet.train.skips import SKIPPED
from tubelet.train.tally import NON_FINITE

MODEL_FOLDER: Final = "model"
RECIPE: Final = "recipe.yaml"
EVALUATION: Final = "evaluation"
FREE: Final = frozenset(
    {"name", "data.workers", "data.cache", "data.max_skipped", "run.log_every", "run.save_every", "run.keep"}
)
"""Fields that may change between two parts of one run: no number in it depends on them."""


def prepare(out: Path, *, fresh: bool) -> None:
    """Make the run folder ready to write, without leftovers of a killed process; with `fresh` without any work in it.

    ValueError where it cannot be written, or another process trains there. Only what runs write is removed.
    """
    open_folder(out)
    with only_run_in(out):
        checkpoint.clean(out)
        if not fresh:
            return
        for folder in (checkpoint.CHECKPOINTS, TENSORBOARD, MODEL_FOLDER, EVALUATION):
            if (out / folder).exists():
                shutil.rmtree(out / folder)
        for file in (LOG, SKIPPED, RECIPE, NON_FINITE):
            (out / file).unlink(missing_ok=True)


def find(out: Path, recipe: PretrainRecipe | FinetuneRecipe) -> checkpoint.Checkpoint | None:
    """The checkpoint to go on from, None where the folder has none.

    ValueError where it is damaged, or was made with a recipe that differs in more than the fields `FREE`.
    """
    folder = checkpoint.latest(out)
    if folder is None:
        return None
    found = checkpoint.load(folder)
    before, now = _flat(found.facts.get("recipe", {})), _flat(recipe.model_dump(mode="json"))
    changed = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
    differing = [name for name in changed if name not in FREE]
    if differing:
        listed = ", ".join(f"{name} ({before.get(name)} -> {now.get(name)})" for name in differing[:8])
        more = f" and {len(differing) - 8} more" if len(differing) > 8 else ""
        raise ValueError(
            f"{out} holds a run of another recipe, at step {found.step}: {listed}{more}; "
            "start again there with --fresh, or choose another folder with --out"
        )
    return found


def _flat(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields by dotted names."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return flat
