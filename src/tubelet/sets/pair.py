"""Two labelled sets that a probe learns from and is tested on, their labels matched by name."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tubelet.data.class_names import Names
from tubelet.data.labels import class_names, relabelled
from tubelet.video.lists.manifest import Manifest, VideoRef, check_unique, read_manifest


@dataclass(frozen=True)
class LabelledPair:
    """Videos to learn from and to be tested on; the labels of both index `names`. `notes` are lines for a person."""

    train: tuple[VideoRef, ...]
    val: tuple[VideoRef, ...]
    names: Names
    sources: tuple[Path, Path]
    notes: tuple[str, ...] = ()


def read_sets(
    train: Path,
    val: Path,
    *,
    root: Path | None = None,
    names_file: Path | None = None,
    clip_frames: int | None = None,
) -> LabelledPair:
    """Read two lists or folders (see `tubelet.video.lists.manifest.read_manifest`) and match their classes.

    ValueError in one line for: an empty set, a bad line, one class only, a label outside the classes, a validation
    class without a training video, a validation video listed twice.
    """
    learnt = read_manifest(train, root=root, labelled=True, clip_frames=clip_frames)
    tested = read_manifest(val, root=root, labelled=True, clip_frames=clip_frames)
    check_unique(tested)
    names = class_names(learnt, names_file=names_file, classes=None)
    learn, test = relabelled(learnt, names), relabelled(tested, names)
    seen = Counter(video.label for video in learn)
    if len(seen) < 2:
        raise ValueError(f"{train}: all videos are of one class; a probe needs at least two")
    for video in test:
        if video.label not in seen:
            raise ValueError(f"{tested.place(video)}: class {_name(names, video)!r} has no training video in {train}")
    return LabelledPair(learn, test, names, (train, val), (*learnt.notes, *tested.notes, *_shared(learnt, tested)))


def _name(names: Names, video: VideoRef) -> str:
    assert video.label is not None  # `relabelled` saw to it
    return names[video.label]


def _shared(learnt: Manifest, tested: Manifest) -> tuple[str, ...]:
    files = {video.path.resolve() for video in learnt.videos}
    both = [video for video in tested.videos if video.path.resolve() in files]
    if not both:
        return ()
    return (
        f"{len(both)} of {len(tested.videos)} validation videos are training videos too ({both[0].name}, ...): "
        "their numbers are too good",
    )
