"""Which frozen network a run learns from: written down in its folder, and known again when the run goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tubelet.disk.layout import TEACHER_FILE
from tubelet.disk.lock import write_text
from tubelet.targets.frozen import FrozenTarget
from tubelet.targets.unions import Target
from tubelet.train.distributed.process_group import on_main
from tubelet.train.records.watch import Watch


@dataclass(frozen=True)
class TeacherRecord:
    """The file that a teacher came from, the SHA-256 of its weights in whatever file, and the option that names it."""

    file: Path
    sha256: str
    option: str


def known_target(target: Target, watch: Watch) -> TeacherRecord | None:
    """The network that a target asks, None where it asks none; the user is told of it. All ranks call this."""
    if not isinstance(target, FrozenTarget):
        return None
    for note in target.notes:
        watch.say(note)
    return TeacherRecord(target.file, on_main(lambda: digest(target.network.state_dict())), "target.teacher")


def check_teacher(out: Path, taught: TeacherRecord | None) -> None:
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
            f"{path}: the run there was begun with another teacher than {taught.file}; give that one with "
            f"{taught.option}, or start again with --fresh or another --out"
        )


def write_teacher(out: Path, taught: TeacherRecord | None) -> None:
    """Write down in the run folder which teacher it has."""
    if taught is None:
        return
    text = json.dumps({"file": str(taught.file), "sha256": taught.sha256}, indent=1) + "\n"
    on_main(lambda: write_text(out / TEACHER_FILE, text))


def digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, kinds, shapes and bytes of tensors, in the order of their names."""
    sums = hashlib.sha256()
    for name, value in sorted(state.items()):
        sums.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        sums.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return sums.hexdigest()
