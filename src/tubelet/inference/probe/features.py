"""What a frozen encoder makes of a labelled set: read once, kept on disk, used by every probe.

FOLDER/<split>-<digest>.npy          float32 [M, D]: one vector per video
FOLDER/<split>-<digest>.tokens.npy   float16 [M, N, D]: its tokens, where they were asked for
FOLDER/<split>-<digest>.json         which videos the rows are, and which could not be read; written last

The digest names the model's weights, the precision, the sampler, the views, and name, size and time of change of every
video, so a change in any of them reads anew.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import torch
from jaxtyping import Float16, Float32, Float64, Int64, UInt8
from torch import Tensor

from tubelet.data.dataset import EvalDataset, Skipped, VideoViews
from tubelet.data.workers.loader import worker_deaths
from tubelet.disk.npy import row_file
from tubelet.disk.write import write_text
from tubelet.eval.scoring import labels_of, packs, read_views, views_per_pass
from tubelet.inference.model import Model
from tubelet.inference.progress import Progress
from tubelet.video.lists.manifest import VideoRef
from tubelet.video.read.frame_range import source_state

VERSION: Final = 1
"""Part of the digest: raised where the same files would give other features."""
MEGABYTE: Final = 1e6


@dataclass(frozen=True)
class FeaturePlan:
    """Where features are kept, and of what: `clips` centre views in time per video, with or without their tokens.

    The vector of a video is the mean over its views; its tokens are those of all views, one view after the other,
    so that an attentive probe may choose among moments, at the price of `clips` times the disk.
    """

    folder: Path
    clips: int = 1
    tokens: bool = False
    workers: int = 2


@dataclass(frozen=True)
class ProbeFeatures:
    """Rows of the videos that could be read; `index` is their place in the manifest, ascending.

    `tokens` is a memory map, None where not asked for.
    """

    pooled: Float32[np.ndarray, "M D"]
    tokens: Float16[np.ndarray, "M N D"] | None
    labels: Int64[np.ndarray, " M"]
    index: Int64[np.ndarray, " M"]
    skipped: tuple[Skipped, ...]


def read_features(
    model: Model, videos: tuple[VideoRef, ...], plan: FeaturePlan, *, split: str, progress: Progress
) -> ProbeFeatures:
    """Features of all videos, from the cache where it holds them.

    Every unreadable video is told and listed in `skipped`; the caller decides whether that is too many, and whatever
    it decides, nothing that was read is lost. ValueError where the disk is too small for the tokens, or the model's
    output is not finite.
    """
    stem = plan.folder / f"{split}-{_digest(model, videos, plan.clips)}"
    kept = _load(stem, videos, tokens=plan.tokens)
    if kept is not None:
        progress.say(f"{split}: features of {len(kept.index)} videos were there ({stem}.npy)")
        return kept
    plan.folder.mkdir(parents=True, exist_ok=True)
    if plan.tokens:
        _check_room(model, len(videos), plan, split=split, progress=progress)
    progress.begin(f"{split} features", len(videos), "videos")
    try:
        _compute(model, videos, plan, stem=stem, progress=progress)
    finally:
        progress.end()
    found = _load(stem, videos, tokens=plan.tokens)
    if found is None:
        raise ValueError(f"{stem}.npy: was written but cannot be read back; is the disk sound?")
    return found


def _digest(model: Model, videos: tuple[VideoRef, ...], clips: int) -> str:
    facts = [VERSION, model.fingerprint, str(model.precision), model.sampler.model_dump(mode="json"), clips]
    files = [[video.name, *_stamp(video.path)] for video in videos]
    return hashlib.sha256(json.dumps([facts, files]).encode()).hexdigest()[:16]


def _stamp(path: Path) -> tuple[int, int]:
    try:
        return source_state(path)
    except OSError:
        return -1, -1


def _check_room(model: Model, videos: int, plan: FeaturePlan, *, split: str, progress: Progress) -> None:
    needed = 2 * videos * plan.clips * model.encoder.out_grid.tokens * model.width
    free = shutil.disk_usage(plan.folder).free
    words = f"tokens of {videos} videos take {needed / MEGABYTE:,.0f} MB"
    if needed > free:
        raise ValueError(
            f"{plan.folder}: {split}: {words}, but {free / MEGABYTE:,.0f} MB are free; choose another --out, "
            "fewer --clips, or --kind knn or linear, which need no tokens"
        )
    progress.say(f"{split}: {words} in {plan.folder}")


def _compute(model: Model, videos: tuple[VideoRef, ...], plan: FeaturePlan, *, stem: Path, progress: Progress) -> None:
    """Read every video once and write its rows; each file appears whole or not at all, the record last."""
    dataset = EvalDataset(videos, clip=model.clip, sampler=model.sampler, clips=plan.clips)
    width, count = model.width, plan.clips * model.encoder.out_grid.tokens
    index: list[int] = []
    skipped: list[Skipped] = []
    with ExitStack() as stack:
        stack.enter_context(worker_deaths())
        pooled = stack.enter_context(row_file(_pooled_file(stem), (model.vector_width,), np.dtype(np.float32)))
        tokens = None
        if plan.tokens:
            tokens = stack.enter_context(row_file(_tokens_file(stem), (count, width), np.dtype(np.float16)))
        for pack in packs(read_views(dataset, workers=plan.workers), views_per_pass(model.encoder.grid)):
            good = [item for item in pack if isinstance(item, VideoViews)]
            for bad in (item for item in pack if isinstance(item, Skipped)):
                progress.say(f"{bad.path}: {_one_line(bad.reason)}")
                skipped.append(bad)
            if good:
                vectors, halves = _encode(model, torch.cat([item.video for item in good]), tokens=plan.tokens)
                pooled.add(vectors.unflatten(0, (len(good), -1)).mean(1).numpy())
                if tokens is not None and halves is not None:
                    tokens.add(halves.unflatten(0, (len(good), -1)).flatten(1, 2).numpy())
                index += [item.index for item in good]
            progress.advance(len(pack), len(good) * plan.clips)
        if not index:
            raise ValueError(f"none of the {len(videos)} videos can be read, the first because: {skipped[0].reason}")
    record = {"index": index, "skipped": [[bad.index, _one_line(bad.reason)] for bad in skipped]}
    write_text(_record_file(stem), json.dumps(record) + "\n")


def _encode(
    model: Model, clips: UInt8[Tensor, "V C T H W"], *, tokens: bool
) -> tuple[Float32[Tensor, "V D"], Float16[Tensor, "V N D"] | None]:
    """Vectors and, where wanted, tokens of views, on the CPU, in passes that fit in memory."""
    limit = views_per_pass(model.encoder.grid)
    vectors, halves = [], []
    for start in range(0, len(clips), limit):
        encoded = model.encode(clips[start : start + limit])
        vectors.append(encoded.pooled.cpu())
        if tokens:
            halves.append(encoded.tokens.half().cpu())
    pooled, both = torch.cat(vectors), torch.cat(halves) if tokens else None
    if not pooled.isfinite().all():
        raise ValueError(f"{model.file}: the model gives features that are not finite; its weights are broken")
    if both is not None and not both.isfinite().all():
        raise ValueError(f"{model.file}: its tokens are beyond float16; take --kind knn or linear, which need none")
    return pooled, both


def _load(stem: Path, videos: tuple[VideoRef, ...], *, tokens: bool) -> ProbeFeatures | None:
    """What is kept under this name; None where a part is absent or damaged."""
    try:
        record = json.loads(_record_file(stem).read_text(encoding="utf-8"))
        index = np.array(record["index"], dtype=np.int64)
        skipped = tuple(
            Skipped(place, videos[place].name, videos[place].path, reason) for place, reason in record["skipped"]
        )
        pooled = np.load(_pooled_file(stem), allow_pickle=False)
        mapped = np.load(_tokens_file(stem), mmap_mode="r", allow_pickle=False) if tokens else None
    except (OSError, ValueError, EOFError, KeyError, IndexError, TypeError):
        return None
    if len(pooled) != len(index) or (mapped is not None and len(mapped) != len(index)):
        return None
    return ProbeFeatures(pooled, mapped, labels_of(videos)[index], index, skipped)


def _pooled_file(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}.npy")


def _tokens_file(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}.tokens.npy")


def _record_file(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}.json")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _save_nothing(folder: Path) -> None:
    del folder


@dataclass(frozen=True)
class ProbeScores:
    """Scores of the classes, each row summing to 1; `facts` go into the record, `notes` are lines for a person.

    `save` writes what was trained into a folder, where that is kept.
    """

    scores: Float64[np.ndarray, "V C"]
    facts: Mapping[str, float | int | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    save: Callable[[Path], None] = _save_nothing
