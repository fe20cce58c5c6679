"""Which frozen network a run learns from: written down in its folder, and known again when the run goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from tubelet.disk.integrity import tensor_bytes
from tubelet.disk.layout import TEACHER_FILE
from tubelet.disk.write import write_text
from tubelet.targets.unions import AnyTarget, Target
from tubelet.train.distributed.process_group import on_main
from tubelet.train.records.watch import Watch


@dataclass(frozen=True)
class TeacherRecord:
    """The file that a teacher came from, the SHA-256 of its weights in whatever file, and the option that names it."""

    file: Path
    sha256: str
    option: str


def known_target(target: Target, watch: Watch) -> tuple[TeacherRecord, ...]:
    """The networks that a target asks; the user is told of each. All ranks call this."""
    found = []
    for one in target.networks:
        for note in one.notes:
            watch.say(note)
        sha256 = on_main(partial(digest, one.network.state_dict()))
        found.append(TeacherRecord(one.file, sha256, "target.teacher"))
    return tuple(found)


def named_teachers(target: AnyTarget) -> dict[str, str | None]:
    """The paths that a recipe gives of its teachers, by the field that names each."""
    specs = target.specs
    fields = ["target.teacher"] if len(specs) == 1 else [f"target[{place}].teacher" for place in range(len(specs))]
    return {field: spec.teacher for field, spec in zip(fields, specs, strict=True)}


def check_teacher(out: Path, taught: Sequence[TeacherRecord]) -> None:
    """ValueError where the run at `out` was begun with teachers of other weights. Where they lie does not matter."""
    path = out / TEACHER_FILE
    if not taught or not path.is_file():
        return
    before = _recorded(path)
    if len(before) != len(taught):
        raise ValueError(
            f"{path}: the run there was begun with {len(before)} teachers, and this recipe has {len(taught)}; "
            "start again with --fresh or another --out"
        )
    for sha256, one in zip(before, taught, strict=True):
        if sha256 != one.sha256:
            raise ValueError(
                f"{path}: the run there was begun with another teacher than {one.file}; give that one with "
                f"{one.option}, or start again with --fresh or another --out"
            )


def write_teacher(out: Path, taught: Sequence[TeacherRecord]) -> None:
    """Write down in the run folder which teachers it has: one mapping for one, a list for several."""
    if not taught:
        return
    facts = [{"file": str(one.file), "sha256": one.sha256} for one in taught]
    text = json.dumps(facts[0] if len(facts) == 1 else facts, indent=1) + "\n"
    on_main(lambda: write_text(out / TEACHER_FILE, text))


def _recorded(path: Path) -> list[str]:
    """The sums of the teachers that a run began with, in the order of its recipe."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return [str(one["sha256"]) for one in (found if isinstance(found, list) else [found])]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: damaged; put it back, or start again with --fresh") from error


def digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, kinds, shapes and bytes of tensors, in the order of their names."""
    sums = hashlib.sha256()
    for part in tensor_bytes(state, end="\n"):
        sums.update(part)
    return sums.hexdigest()
