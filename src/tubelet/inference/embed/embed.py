"""Vectors of all clips of a set of videos: resumable, in batches, shared among processes, the same bytes each time.

The videos are cut into units of a few dozen in a row. Batches do not reach beyond a unit, so a vector depends neither
on where a run was stopped nor on who computed it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Final

import torch
from pydantic import Field

from tubelet.data.dataset import Skipped
from tubelet.inference.embed.batches import Batches
from tubelet.inference.embed.store import Facts, row_count
from tubelet.inference.embed.stream import stream
from tubelet.inference.embed.windows import Window, Windows, check_windows, read_windows
from tubelet.inference.embed.work_units import Bad, WorkUnits, read_skipped, skipped_file
from tubelet.inference.model import Model
from tubelet.inference.progress import Progress, Quiet
from tubelet.names import writable
from tubelet.spec import Spec, replace
from tubelet.train.distributed.signals import StopRequest, stop_request
from tubelet.video.lists.manifest import Manifest, VideoRef, check_unique
from tubelet.video.read.frame_range import source_state

VIDEOS_A_UNIT: Final = 32
SKIPS_TOLD: Final = 5
"""Skipped videos that are told one by one; the file names them all."""


class Settings(Spec):
    """How to embed. `leader` is the process that started this one as a helper: it merges, and without it we stop."""

    windows: Windows = Windows()
    batch: int = Field(default=16, ge=1, description="clips in a pass")
    threads: int = Field(default=2, ge=1, description="threads that decode")
    shard: tuple[int, int] = Field(default=(0, 1), description="which share of the units, of how many; from 0")
    max_skipped: float = Field(default=0.25, ge=0, le=1, description="largest share of unreadable videos")
    fresh: bool = False
    leader: int | None = None


@dataclass(frozen=True)
class Embedded:
    """What came out. `out` is None while other shards have not finished; `rows` are those of the file.

    `clips` went through the model in this run, which took `seconds`: none where the file was finished before.
    """

    out: Path | None
    rows: int
    videos: int
    clips: int
    skipped: tuple[Bad, ...]
    seconds: float


class Stopped(Exception):  # noqa: N818  not an error: finished units are kept
    """The run was asked to stop. `signal` is the number of what asked."""

    def __init__(self, number: int, out: Path) -> None:
        name = signal.Signals(number).name
        super().__init__(f"{out}: stopped by {name}; finished work is kept, run the same command again to go on")
        self.signal = number


def embed(
    model: Model, manifest: Manifest, out: Path, settings: Settings | None = None, progress: Progress | None = None
) -> Embedded:
    """Write a vector for every clip of every video to the Parquet file `out` (see `tubelet.inference.embed.store`).

    Unreadable videos are listed in `OUT.skipped.csv` (path, reason). A run that was stopped or killed goes on where it
    was; one over a finished file of the same plan does nothing. The last shard to finish puts the file together.
    ValueError for a file or work of another plan (without `fresh`), for too many unreadable videos, for a video that is
    listed twice; Stopped after Ctrl-C or SIGTERM.
    """
    settings, progress = settings or Settings(), progress or Quiet()
    check_unique(manifest)
    check_windows(settings.windows, model.sampler)
    units = open_units(out, settings)
    facts = facts_of(model, manifest, settings)
    started = time.monotonic()
    with units.working(settings.shard):
        with units.locked():
            is_to_do = units.begin(facts)
        if is_to_do:
            clips = _Embedding(model, manifest.videos, units, facts, settings=settings, progress=progress).run()
        else:
            progress.say(f"{out}: finished before, nothing to do")
            clips = 0
        return finish(units, facts, settings, clips=clips, seconds=time.monotonic() - started)


def open_units(out: Path, settings: Settings) -> WorkUnits:
    """The place of the work, emptied where `fresh`. ValueError where it cannot be."""
    if out.suffix != ".parquet":
        raise ValueError(f"{out}: embeddings are written as a .parquet file")
    index, shards = settings.shard
    if not 0 <= index < shards:
        raise ValueError(f"shard {index}/{shards}: shards are counted from 0, so the last is {shards - 1}/{shards}")
    if settings.fresh and shards > 1:
        raise ValueError(f"--fresh would throw away what other shards did; delete {out}.parts and {out} yourself")
    units = WorkUnits(out)
    try:
        if settings.fresh:
            with units.working(settings.shard):
                units.clear()
        units.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{out}: cannot be written ({error.strerror}); choose another -o") from error
    return units


def facts_of(model: Model, manifest: Manifest, settings: Settings) -> Facts:
    """What the file will say of itself."""
    facts = Facts(
        model=str(model.file.absolute()),
        fingerprint=model.fingerprint,
        recipe=model.recipe.name,
        pooling=model.pooling,
        width=model.vector_width,
        clip=model.clip,
        sampler=model.sampler,
        windows=settings.windows,
        precision="bf16" if model.precision is torch.bfloat16 else "fp32",
        device=model.device.type,
        batch=settings.batch,
        unit=max(VIDEOS_A_UNIT // settings.batch, 1) * settings.batch,
        source=writable(str(manifest.source.absolute())),
        root=writable(str(_root(manifest).absolute())),
        videos=len(manifest.videos),
        files=_digest_of_files(manifest),
    )
    places = {"model", "recipe", "source", "root", "plan"}  # these may differ and the rows are the same
    return replace(facts, plan=hashlib.sha256(facts.model_dump_json(exclude=places).encode()).hexdigest())


def finish(units: WorkUnits, facts: Facts, settings: Settings, *, clips: int, seconds: float) -> Embedded:
    """Put the file together if all units are there. ValueError where too many videos could not be read."""
    done = Embedded(out=None, rows=0, videos=facts.videos, clips=clips, skipped=(), seconds=seconds)
    if settings.leader is not None:
        return done
    with units.locked():
        if not units.begin(facts):
            units.remove()
            return _read_back(units.out, done)
        if set(range(facts.units)) - units.finished():
            return done
        skipped = units.check_skipped(range(facts.units), facts, max_skipped=settings.max_skipped)
        rows = units.merge(facts)
    return Embedded(units.out, rows, facts.videos, clips, skipped, seconds)


class _Embedding:
    """One run over the units of a shard that are not there yet: `facts` say how, `settings` who does what."""

    def __init__(
        self,
        model: Model,
        videos: Sequence[VideoRef],
        units: WorkUnits,
        facts: Facts,
        *,
        settings: Settings,
        progress: Progress,
    ) -> None:
        self._model, self._videos, self._units, self._facts = model, videos, units, facts
        self._settings, self._progress = settings, progress
        index, shards = settings.shard
        mine = range(index, facts.units, shards)
        finished = units.finished()
        self._todo = [unit for unit in mine if unit not in finished]
        self._skipped = sum(len(units.bad(unit)) for unit in mine if unit in finished)
        self._told = 0

    def run(self) -> int:
        """Do them; returns how many clips went through the model."""
        size = self._facts.unit
        places = [place for unit in self._todo for place in range(unit * size, (unit + 1) * size)]
        places = [place for place in places if place < len(self._videos)]
        if len(places) < self._facts.videos and self._settings.shard[1] == 1:
            self._progress.say(f"{self._units.out}: going on, {len(places)} of {self._facts.videos} videos are left")
        self._progress.begin("embed", len(places), "videos")
        read = partial(read_windows, clip=self._facts.clip, sampler=self._facts.sampler, windows=self._facts.windows)
        videos = [self._videos[place] for place in places]
        clips = 0
        try:
            with stop_request() as request:
                look = partial(self._look, request)
                with closing(stream(videos, read, threads=self._settings.threads, look=look)) as items:
                    found = ((places[number], item) for number, item in items)
                    for unit, group in groupby(found, key=lambda pair: pair[0] // size):
                        clips += self._unit(unit, group, look)
        finally:
            self._progress.end()
        return clips

    def _unit(self, unit: int, found: Iterator[tuple[int, Window | Skipped]], look: Callable[[], None]) -> int:
        batches, bad, clips = Batches(self._model, self._facts.batch), list[Bad](), 0
        for place, group in groupby(found, key=lambda pair: pair[0]):
            video = self._videos[place]
            for _, item in group:
                look()
                if isinstance(item, Skipped):
                    batches.drop(video.name)
                    bad.append((video.name, " ".join(item.reason.split())))
                    self._tell(bad[-1])
                else:
                    new = batches.add(video.name, item)
                    self._progress.advance(0, new)
                    clips += new
            self._progress.advance(1, 0)
        new = batches.compute()
        self._progress.advance(0, new)
        self._units.write(unit, batches.rows(), bad)
        self._skipped += len(bad)
        self._check()
        return clips + new

    def _look(self, request: StopRequest) -> None:
        """Stopped where a signal asks for it, or the process that this one works for is gone."""
        leader = self._settings.leader
        number = signal.SIGTERM if leader is not None and os.getppid() != leader else request.signal
        if number is not None:
            raise Stopped(number, self._units.out)

    def _tell(self, bad: Bad) -> None:
        self._told += 1
        if self._told <= SKIPS_TOLD:
            self._progress.say(f"skipped {bad[0]}: {bad[1]}")
        elif self._told == SKIPS_TOLD + 1:
            self._progress.say(f"more are skipped; {skipped_file(self._units.out)} will name them")

    def _check(self) -> None:
        """Fail as soon as it is certain that too many videos cannot be read; the file then names those found so far."""
        if self._skipped > self._settings.max_skipped * self._facts.videos:
            found = sorted(self._units.finished())
            self._units.check_skipped(found, self._facts, max_skipped=self._settings.max_skipped)


def _read_back(out: Path, done: Embedded) -> Embedded:
    """The result of a run before."""
    return dataclasses.replace(done, out=out, rows=row_count(out), skipped=read_skipped(out))


def _root(manifest: Manifest) -> Path:
    """The folder that the names start from."""
    video: VideoRef = manifest.videos[0]
    parts = Path(video.name).parts
    return Path("/") if Path(video.name).is_absolute() else video.path.parents[len(parts) - 1]


def _digest_of_files(manifest: Manifest) -> str:
    digest = hashlib.sha256()
    for video in manifest.videos:
        try:
            size, changed_ns = source_state(video.path)
            state = f"{size}\0{changed_ns}"
        except OSError:
            state = "missing"
        digest.update(writable(f"{video.name}\0{state}\n").encode())
    return digest.hexdigest()
