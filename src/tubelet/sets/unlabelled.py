"""The unlabelled videos of a recipe: one set, or several with weights, long videos of them cut into pieces."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tubelet.data.dataset import ClipDataset, ClipPlan, MaskDraw
from tubelet.data.mixed import MixedDataset, Source, shared_videos
from tubelet.data.mixture import Mixture, Share
from tubelet.recipe import Data, LabelledData, SingleRun, StreamRecipe, VideoSource, reading_of
from tubelet.recipe.data import source_names
from tubelet.train.distributed.process_group import on_main
from tubelet.video.lists.cut import Length, lengths, pieces
from tubelet.video.lists.manifest import Manifest, VideoRef, read_manifest

Say = Callable[[str], None]

_MANY: Final = 100
"""From so many files on, the look at their lengths tells how far it is."""
_LONGEST_LOOK_SECONDS: Final = 120.0
_LOOKERS: Final = 16


def unlabelled_sources(data: Data, say: Say, *, clip_frames: int | None = None) -> tuple[Source, ...]:
    """The videos of each of `data.sources`, or those of `data.videos` as the only source.

    `clip_frames` as in `read_manifest`: with 1, images count. ValueError in one line for what is not there, or a source
    that gives an epoch nothing.
    """
    if not data.sources:
        if data.videos is None:
            raise ValueError("no videos to train on: give a folder or a list with --data (data.videos in the recipe)")
        manifest = read_manifest(
            Path(data.videos), root=path_or_none(data.root), labelled=False, clip_frames=clip_frames
        )
        for note in manifest.notes:
            say(note)
        return (Source(Path(data.videos).stem, manifest.videos),)
    found = []
    for name, source in zip(source_names(data.sources), data.sources, strict=True):
        manifest = _manifest(data, source, clip_frames)
        for note in manifest.notes:
            say(note)
        Share(name, len(manifest.videos), source.weight)  # may refuse before a long look at the files
        videos = manifest.videos if source.segment_seconds is None else _cut(name, source, manifest, data, say)
        found.append(Source(name, videos, source.weight, source.sampler, source.augment))
    return tuple(found)


def training_set(
    sources: tuple[Source, ...], plan: ClipPlan, *, mixes: bool, say: Say
) -> tuple[ClipDataset | MixedDataset, Mixture | None]:
    """The data set of these sources, and what an epoch takes of it: None for all of a single set, unless it `mixes`."""
    if not mixes:
        return ClipDataset(sources[0].videos, plan), None
    mixed = MixedDataset(sources, plan)
    for line in mixed.mixture.lines():
        say(line)
    shared = shared_videos(sources)
    if shared is not None:
        say(shared)
    return mixed, mixed.mixture


def clip_plan(recipe: SingleRun | StreamRecipe, *, masks: MaskDraw | None = None) -> ClipPlan:
    """How the clips of a run are taken from its videos, with masks where these are given."""
    data = recipe.data
    return ClipPlan(
        clip=recipe.clip,
        sampler=data.sampler,
        augment=data.augment,
        seed=recipe.seed,
        views=data.views,
        masks=masks,
        cache=path_or_none(data.cache),
        reading=reading_of(data),
    )


def videos_of_epoch(recipe: SingleRun, say: Say) -> int | None:
    """How many videos an epoch of the recipe takes; None where it names none. Errors as in `unlabelled_sources`."""
    data, frames = recipe.data, recipe.clip.frames
    if isinstance(data, LabelledData):
        return _labelled_of_epoch(data, frames)
    if data.videos is None and not data.sources:
        return None
    return sum(source.share.slots for source in unlabelled_sources(data, say, clip_frames=frames))


def _labelled_of_epoch(data: LabelledData, clip_frames: int) -> int | None:
    """The same of labelled videos, whose labels are read and not checked."""

    def count(source: str, root: str | None) -> int:
        listed = read_manifest(Path(source), root=path_or_none(root), labelled=True, clip_frames=clip_frames)
        return len(listed.videos)

    if data.train is not None:
        return count(data.train, data.root)
    named = zip(source_names(data.sources), data.sources, strict=True)
    shares = [Share(name, count(one.train, one.root or data.root), one.weight) for name, one in named]
    return sum(share.slots for share in shares) or None


def path_or_none(path: str | None) -> Path | None:
    """A path of a recipe."""
    return None if path is None else Path(path)


def _manifest(data: Data, source: VideoSource, clip_frames: int | None) -> Manifest:
    root = path_or_none(source.root or data.root)
    return read_manifest(Path(source.videos), root=root, labelled=False, clip_frames=clip_frames)


def _cut(name: str, source: VideoSource, manifest: Manifest, data: Data, say: Say) -> tuple[VideoRef, ...]:
    """The videos in pieces. Rank 0 alone looks at the files, so that all ranks have the same pieces."""
    assert source.segment_seconds is not None
    paths = [video.path for video in manifest.videos]
    say(f"source {name}: looking up the length of {len(paths)} files")

    def look() -> str:
        found = lengths(
            paths,
            workers=min(max(data.workers, 1), _LOOKERS),
            limit_seconds=data.max_seconds_per_file or _LONGEST_LOOK_SECONDS,
            on_progress=_progress(name, len(paths), say),
        )
        return json.dumps([[one.seconds, one.reason] for one in found])

    rows: list[Any] = json.loads(on_main(look))
    found = [Length(seconds, reason) for seconds, reason in rows]
    unknown = [(video, one) for video, one in zip(manifest.videos, found, strict=True) if one.seconds is None]
    if unknown:
        video, one = unknown[0]
        say(
            f"source {name}: {len(unknown)} files stay in one piece, for their length cannot be told, such as "
            f"{video.path}: {one.reason}"
        )
    cut = pieces(manifest.videos, found, source.segment_seconds)
    say(f"source {name}: {len(paths)} files in {len(cut)} pieces of about {source.segment_seconds:g} s")
    return cut


def _progress(name: str, total: int, say: Say) -> Callable[[int], None]:
    """Tells every tenth of many files."""

    def on_progress(done: int) -> None:
        if total >= _MANY and done * 10 // total > (done - 1) * 10 // total:
            say(f"source {name}: {done}/{total} files")

    return on_progress
