"""A set of synthetic videos on disk: H.264 files, most of them without a label, and lists of the others."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import av
import torch
from jaxtyping import UInt8
from numpy import ndarray
from pydantic import Field

from tubelet.data.synthetic.scenes import MOTIONS, clip_of
from tubelet.disk.write import whole_file, write_text
from tubelet.spec import Spec

VIDEOS: Final = "videos"
UNLABELLED: Final = "unlabelled.txt"
CLASSES: Final = "classes.txt"
PLAN: Final = "plan.json"
SPLITS: Final = ("train", "val", "test")
FILES_A_TASK: Final = 20


class SyntheticPlan(Spec):
    """What is made: how many videos for what, and what each is like."""

    unlabelled: int = Field(default=3200, ge=1)
    train: int = Field(default=400, ge=len(MOTIONS), description="labelled videos to train on")
    val: int = Field(default=160, ge=len(MOTIONS))
    test: int = Field(default=800, ge=len(MOTIONS))
    frames: int = Field(default=24, ge=2)
    size: int = Field(default=56, ge=16, multiple_of=2, description="width and height in pixels")
    fps: int = Field(default=12, ge=1)
    crf: int = Field(default=18, ge=0, le=51, description="x264 quality: 0 is lossless, 23 usual")
    seed: int = Field(default=0, ge=0)

    @property
    def total(self) -> int:
        return self.unlabelled + self.train + self.val + self.test


@dataclass(frozen=True)
class SyntheticSet:
    """Where the parts of a finished set are."""

    folder: Path

    @property
    def unlabelled(self) -> Path:
        return self.folder / UNLABELLED

    @property
    def train(self) -> Path:
        return self.folder / "train.csv"

    @property
    def val(self) -> Path:
        return self.folder / "val.csv"

    @property
    def test(self) -> Path:
        return self.folder / "test.csv"

    @property
    def classes(self) -> Path:
        return self.folder / CLASSES


def make_dataset(
    folder: Path,
    plan: SyntheticPlan,
    *,
    workers: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
) -> SyntheticSet:
    """Write what is missing of the set; a finished one is used as it is. `on_progress` gets files done and in all.

    Files appear whole or not at all, so an interrupted call goes on where it was. The same plan gives the same videos.
    ValueError where the folder holds a set of another plan, or cannot be written.
    """
    try:
        (folder / VIDEOS).mkdir(parents=True, exist_ok=True)
        _keep_plan(folder, plan)
    except OSError as error:
        raise ValueError(f"{folder}: videos cannot be written here ({error.strerror}); choose another --out") from error
    present = {file.name for file in os.scandir(folder / VIDEOS)}
    missing = [index for index in range(plan.total) if file_name(index) not in present]
    done = plan.total - len(missing)
    tell = on_progress or _ignore
    tell(done, plan.total)
    for count in _write_all(folder, plan, missing, workers=workers):
        done += count
        tell(done, plan.total)
    _write_lists(folder, plan)
    return SyntheticSet(folder)


def write_video(frames: UInt8[ndarray, "T H W 3"], path: Path, *, fps: int, crf: int = 18) -> None:
    """Write frames as H.264 in MP4 (yuv420p, B-frames as the encoder likes), whole or not at all."""
    # With mbtree, x264's assembly gives other bytes each time; equal seeds are to give equal files.
    options = {"crf": str(crf), "preset": "veryfast", "threads": "1", "x264-params": "mbtree=0"}
    with whole_file(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options=options)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def file_name(index: int) -> str:
    """Name of video `index`; it does not tell the class."""
    return f"{index:06d}.mp4"


def _keep_plan(folder: Path, plan: SyntheticPlan) -> None:
    path = folder / PLAN
    if path.is_file():
        kept = _read_json(path)
        if kept != plan.model_dump():
            raise ValueError(f"{path}: the folder holds videos of another plan; delete it or choose another --out")
        return
    write_text(path, plan.model_dump_json(indent=1))


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        return None


def _write_all(folder: Path, plan: SyntheticPlan, missing: list[int], *, workers: int) -> Iterator[int]:
    """Numbers of files written, as they get done."""
    tasks = [missing[first : first + FILES_A_TASK] for first in range(0, len(missing), FILES_A_TASK)]
    if workers == 0 or len(tasks) <= 1:
        yield from (_write_some(folder, plan, task) for task in tasks)
        return
    # Not forked: the threads of torch do not survive that.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker) as pool:
        try:
            yield from pool.map(_write_some, [folder] * len(tasks), [plan] * len(tasks), tasks)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _start_worker() -> None:
    """One thread each; only the main process decides when to stop."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _write_some(folder: Path, plan: SyntheticPlan, indices: list[int]) -> int:
    for index in indices:
        frames = clip_of(plan.seed, index, frames=plan.frames, size=plan.size)
        write_video(frames, folder / VIDEOS / file_name(index), fps=plan.fps, crf=plan.crf)
    return len(indices)


def _ignore(done: int, total: int) -> None:
    pass


def _write_lists(folder: Path, plan: SyntheticPlan) -> None:
    first = plan.unlabelled
    write_lines(folder / UNLABELLED, [f"{VIDEOS}/{file_name(index)}" for index in range(first)])
    for split, count in zip(SPLITS, (plan.train, plan.val, plan.test), strict=True):
        rows = [f"{VIDEOS}/{file_name(index)} {index % len(MOTIONS)}" for index in range(first, first + count)]
        write_lines(folder / f"{split}.csv", rows)
        first += count
    write_lines(folder / CLASSES, list(MOTIONS))


def write_lines(path: Path, lines: list[str]) -> None:
    """A list: one line after the other, whole or not at all."""
    write_text(path, "\n".join(lines) + "\n")
