"""A collection of videos made ready for training, in processes that may crash or hang, going on where it stopped."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tubelet.disk.lock import alone_in
from tubelet.disk.write import move
from tubelet.video.lists.manifest import VIDEO_EXTENSIONS, Manifest
from tubelet.video.prepare.record import PreparationLog, Record, SourceState, open_log
from tubelet.video.prepare.transcode import Preparation, PreparedFile, transcode
from tubelet.video.read.byte_range import byte_range_of
from tubelet.video.read.errors import BadVideo
from tubelet.video.read.frame_range import frame_range_of, source_state
from tubelet.video.read.limits import last_resort
from tubelet.video.work.team import Advance, Beat, Lost, each

MEMORY_BYTES: Final = 4 * 2**30
"""What the process of one file may take. A few frames of 8192 x 4320 pixels with 10 bits take 2 GB."""
TEMPORARY: Final = ".tmp"


@dataclass(frozen=True)
class SkippedSource:
    """A source that was not prepared, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class SourceTask:
    """A source to be done: `name` is what its files are called after, relative to `folder`."""

    name: str
    source: SourceState
    folder: Path
    how: Preparation


class Collection:
    """The sources of a manifest and what is known of them in the folder `out`; use `open_collection`.

    `names` has for each video of the manifest what its files are called after; `todo` what is to be done yet; `done`
    and `skipped` grow as `work` goes on.
    """

    def __init__(self, manifest: Manifest, out: Path, log: PreparationLog, *, root: Path, how: Preparation) -> None:
        self.manifest, self.out = manifest, out
        self._log = log
        self.names = target_names([video.path for video in manifest.videos], root)
        self.done: dict[str, Record] = {}
        self.skipped: dict[str, SkippedSource] = {}
        self.todo: list[SourceTask] = []
        for name, path in dict(zip(self.names, [video.path for video in manifest.videos], strict=True)).items():
            self._look_at(name, path, how)
        self.done_before = frozenset(self.done)

    def work(
        self, *, workers: int, limit_seconds: float
    ) -> Iterator[tuple[SourceTask, float | Record | SkippedSource]]:
        """Do what is to be done; yields a task with the share of it that is done, then with what became of it.

        A source that kills its process, or is silent for `limit_seconds`, is skipped. OSError where `out` cannot be
        written; what was done until then is kept, and the next time goes on from there.
        """
        for task in self.todo:
            old = self._log.get(task.name)
            if old is not None:
                self._log.begin(old)
        for place, said in each(self.todo, prepare_one, workers=workers, limit_seconds=limit_seconds):
            task = self.todo[place]
            if isinstance(said, Advance):
                yield task, said.amount
            elif isinstance(said, Refused):
                raise OSError(said.number, said.text, said.path)
            else:
                yield task, self._note(task, said)

    def _note(self, task: SourceTask, said: tuple[PreparedFile, ...] | str | Lost) -> Record | SkippedSource:
        if isinstance(said, tuple):
            record = Record(task.name, task.source, task.how, said)
            self._log.add(record)
            self.done[task.name] = record
            return record
        skipped = SkippedSource(task.source.path, said.reason if isinstance(said, Lost) else said)
        self.skipped[task.name] = skipped
        return skipped

    def _look_at(self, name: str, path: Path, how: Preparation) -> None:
        try:
            size, changed_ns = source_state(path)
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            self.skipped[name] = SkippedSource(path, "no such file" if missing else str(error.strerror))
            return
        source = SourceState(path.absolute(), size, changed_ns)
        record = self._log.get(name)
        if record is not None:
            _check_same_source(self.out, record, source)
            if record.holds(self.out, source, how):
                self.done[name] = replace(record, source=source)
                return
        self.todo.append(SourceTask(name, source, self.out, how))


@contextmanager
def open_collection(manifest: Manifest, out: Path, how: Preparation, *, root: Path | None) -> Iterator[Collection]:
    """The collection of a manifest in the folder `out`, which is made and kept from other processes.

    File names start from `root`, else from the folder or the folder of the list. ValueError where `out` cannot be
    used: it lies inside the source, holds other files, or files of the same name from other sources; and for shards.
    """
    source = manifest.source
    is_tree = source.is_dir() and manifest.videos[0].path.resolve() != source.resolve()
    start = root or (source if is_tree else source.parent)
    if any(byte_range_of(video.path) is not None for video in manifest.videos):
        raise ValueError(f"{source}: shards hold prepared videos; give the videos themselves")
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"{out}: lies inside {source}; the next time its files would be taken for sources")
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ".lock").touch()
    except OSError as error:
        raise ValueError(f"{out}: the output folder cannot be written ({error.strerror or error})") from error
    with alone_in(out), open_log(out) as log, _temporary(out):
        yield Collection(manifest, out, log, root=start, how=how)


def target_names(paths: Sequence[Path], root: Path) -> list[str]:
    """What the prepared files of each source are called after: its path from `root`, without the extension.

    A source outside `root` keeps its whole path, and a folder of images its whole name, whatever dots it has. Where two
    videos in a folder differ in the extension only, both keep it. ValueError where two sources come to the same name
    all the same.
    """
    siblings = _Siblings()
    owner: dict[str, Path] = {}
    names = []
    for path in paths:
        images = frame_range_of(path)
        shown_path = path if images is None else images.shown
        full = Path(os.path.abspath(shown_path))  # resolves no links: sets are often linked together
        start = os.path.abspath(root)
        shown = full.relative_to(start) if full.is_relative_to(start) else full.relative_to(full.anchor)
        keeps_end = images is not None or siblings.differ_in_extension(full)
        name = _listable(shown.as_posix() if keeps_end else shown.with_suffix("").as_posix())
        if owner.setdefault(name, full) != full:
            raise ValueError(f"{full} and {owner[name]} would both be prepared as {name}")
        names.append(name)
    return names


class _Siblings:
    """Which videos of a folder have the same name but for the extension. Reads each folder once."""

    def __init__(self) -> None:
        self._counts: dict[Path, dict[str, int]] = {}

    def differ_in_extension(self, path: Path) -> bool:
        if path.parent not in self._counts:
            counts: dict[str, int] = {}
            for name in os.listdir(path.parent) if path.parent.is_dir() else []:
                stem, extension = os.path.splitext(name)
                if extension.lower() in VIDEO_EXTENSIONS:
                    counts[stem] = counts.get(stem, 0) + 1
            self._counts[path.parent] = counts
        return self._counts[path.parent].get(path.stem, 0) > 1


def _listable(name: str) -> str:
    """The name with what a line of a list cannot hold written as %XX."""
    return re.sub(r'^[\s"]|[\x00-\x1f\x7f\ud800-\udfff]', lambda found: f"%{ord(found[0]) & 0xFF:02X}", name)


def _check_same_source(out: Path, record: Record, source: SourceState) -> None:
    made_from = record.source.path
    if made_from != source.path and made_from.exists():
        raise ValueError(
            f"{source.path}: would be prepared as {record.name}, which {out} holds from {made_from}; "
            "prepare it in another folder, or give --root, the folder above both"
        )


@dataclass(frozen=True)
class Refused:
    """The system would not take a file: fields of an OSError, which ends all work."""

    number: int
    text: str
    path: str


def prepare_one(task: SourceTask, beat: Beat) -> tuple[PreparedFile, ...] | str | Refused:
    """Prepare one source in this process: its files with paths relative to the folder, or why it was skipped."""
    work = task.folder / TEMPORARY / str(os.getpid())
    work.mkdir(exist_ok=True)
    try:
        with last_resort(seconds=None, memory_bytes=MEMORY_BYTES):
            parts = transcode(task.source.path, lambda number: work / f"{number}.mp4", task.how, beat=beat)
        return tuple(_move(task, part, number, of=len(parts)) for number, part in enumerate(parts))
    except BadVideo as bad:
        return bad.reason
    except OSError as error:
        return Refused(error.errno or 0, error.strerror or str(error), str(error.filename or task.folder))


def _move(task: SourceTask, part: PreparedFile, number: int, *, of: int) -> PreparedFile:
    relative = Path(f"{task.name}.mp4" if of == 1 else f"{task.name}.part{number:04d}.mp4")
    target = task.folder / relative
    target.parent.mkdir(parents=True, exist_ok=True)
    move(part.path, target)
    return replace(part, path=relative)


@contextmanager
def _temporary(out: Path) -> Iterator[None]:
    folder = out / TEMPORARY
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
