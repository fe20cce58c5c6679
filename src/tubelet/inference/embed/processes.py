"""Embedding shared among processes of this machine: each does a shard, this one looks on and puts all together."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO, Final

from tubelet.doctor.machine import cores
from tubelet.inference.embed.embed import Embedded, Settings, Stopped, finish
from tubelet.inference.embed.store import read_facts
from tubelet.inference.embed.work_units import WorkUnits
from tubelet.inference.progress import Progress
from tubelet.train.distributed.signals import StopRequest, stop_request
from tubelet.video.lists.manifest import Manifest, check_unique

LOOK_SECONDS: Final = 0.2
GOODBYE_SECONDS: Final = 30.0
"""How long helpers get to stop before they are killed."""


@dataclass(frozen=True)
class Helper:
    """A command that embeds one shard, and what it finds in its environment beside ours."""

    command: tuple[str, ...]
    environment: dict[str, str]


def embed_in_processes(
    helpers: Sequence[Helper], manifest: Manifest, units: WorkUnits, settings: Settings, progress: Progress
) -> Embedded:
    """Run the helpers to their ends and put their units together; `settings` are those of the whole.

    ValueError with its own last line where a helper fails; the others are stopped then. Stopped after a signal, once
    they have stopped. What they finished is kept.
    """
    check_unique(manifest)
    started = time.monotonic()
    look = _UnitWatch(units, manifest, progress)
    progress.begin("embed", len(manifest.videos) - look.before, "videos")
    try:
        with stop_request() as request, _running(helpers) as crew:
            _wait(crew, units, request, look)
    finally:
        progress.end()
    facts = units.facts() or read_facts(units.out)
    return finish(units, facts, settings, clips=look.clips, seconds=time.monotonic() - started)


def share_of_machine(shard: int, processes: int, *, gpus: int) -> dict[str, str]:
    """Environment of a helper: its part of the cores, and one GPU (of those that we see), taken in turns."""
    mine = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, cores() // processes)))}
    if gpus:
        listed = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        names = listed.split(",") if listed else [str(number) for number in range(gpus)]
        mine["CUDA_VISIBLE_DEVICES"] = names[shard % len(names)]
    return mine


@dataclass
class _Running:
    process: subprocess.Popen[bytes]
    notes: IO[bytes]

    def said(self) -> list[str]:
        """What it wrote on stderr, line by line."""
        self.notes.seek(0)
        lines = self.notes.read().decode(errors="replace").splitlines()
        return [line.strip() for line in lines if line.strip()]


class _UnitWatch:
    """Sees units appear and tells how far the work is."""

    def __init__(self, units: WorkUnits, manifest: Manifest, progress: Progress) -> None:
        self._units, self._total, self.progress = units, len(manifest.videos), progress
        self.clips = 0
        self._seen = units.finished()
        self.before = sum(self._videos(unit) for unit in self._seen)
        if self._seen:
            progress.say(f"{units.out}: going on, {self._total - self.before} of {self._total} videos are left")

    def __call__(self) -> None:
        for unit in sorted(self._units.finished() - self._seen):
            clips = self._units.clips(unit)
            self._seen.add(unit)
            self.clips += clips
            self.progress.advance(self._videos(unit), clips)

    def _videos(self, unit: int) -> int:
        facts = self._units.facts()
        assert facts is not None, "units are written after the plan"
        return min(facts.unit, self._total - unit * facts.unit)


@contextmanager
def _running(helpers: Sequence[Helper]) -> Iterator[list[_Running]]:
    """The helpers' processes, none of which outlives the block."""
    with ExitStack() as stack:
        crew = []
        for helper in helpers:
            notes = stack.enter_context(tempfile.TemporaryFile())
            process = subprocess.Popen(
                helper.command,
                env={**os.environ, **helper.environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=notes,
            )
            stack.callback(_stop, process)
            crew.append(_Running(process, notes))
        yield crew


def _wait(crew: Sequence[_Running], units: WorkUnits, request: StopRequest, look: _UnitWatch) -> None:
    while True:
        codes = [one.process.poll() for one in crew]
        look()
        if request.signal is not None:
            for one in crew:
                one.process.terminate()
            for one in crew:
                _stop(one.process)
            raise Stopped(request.signal, units.out)
        for shard, (one, code) in enumerate(zip(crew, codes, strict=True)):
            if code:
                raise ValueError(f"process {shard} of {len(crew)}: {_failure(one, code)}")
        if all(code == 0 for code in codes):
            for line in dict.fromkeys(line for one in crew for line in one.said()):
                look.progress.say(line)
            return
        time.sleep(LOOK_SECONDS)


def _failure(one: _Running, code: int) -> str:
    if code < 0:
        return f"killed by signal {-code}; finished work is kept, run the same command again to go on"
    lines = one.said()
    return lines[-1].removeprefix("tubelet: ") if lines else f"failed with exit code {code}"


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask it to stop, and see that it does."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(GOODBYE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
