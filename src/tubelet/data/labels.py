"""Classes of a labelled set: their names, and labels that mean the same in training, validation and test.

A folder tree numbers its sub-folders in sorted order, so a test folder that lacks a class would number the rest
differently. Where both sides have names, labels are therefore matched by name, never by number.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from tubelet.data.class_names import Names, read_names
from tubelet.data.label_space import normalised
from tubelet.spec import did_you_mean
from tubelet.video.lists.manifest import Manifest, VideoRef, check_labels

MANY: Final = 50
"""More classes than this are not listed in a message."""


def class_names(manifest: Manifest, *, names_file: Path | None, classes: int | None) -> Names:
    """Names of the classes to learn: from the file, else from the manifest, else the numbers up to the largest label.

    `classes`, where given, must agree with the names; for numbers alone it may exceed the largest label.
    """
    names = manifest.classes if names_file is None else read_names(names_file)
    if names is None:
        largest = max(_label(video, manifest) for video in manifest.videos)
        count = largest + 1 if classes is None else classes
        names = tuple(str(label) for label in range(count))
    if classes is not None and classes != len(names):
        where = manifest.source if names_file is None else names_file
        raise ValueError(f"{where} names {len(names)} classes but the recipe says classes={classes}; make them agree")
    if len(names) < 2:
        raise ValueError(f"{manifest.source}: one class only ({', '.join(names)}); a classifier needs at least two")
    return names


def relabelled(manifest: Manifest, names: Names) -> tuple[VideoRef, ...]:
    """The manifest's videos with labels that index `names`; case, spaces and underscores need not agree.

    ValueError for a class that `names` lacks, or a label outside them, with the list's line.
    """
    if manifest.classes is None or manifest.classes == names:
        check_labels(manifest, len(names))
        return manifest.videos
    near = {normalised(name): label for label, name in enumerate(names)}
    if len(near) < len(names):  # some differ in nothing else
        near = {}
    exact = {name: label for label, name in enumerate(names)}
    labels = [exact.get(name, near.get(normalised(name))) for name in manifest.classes]
    return tuple(_renumbered(video, manifest, labels, names) for video in manifest.videos)


def without_videos(videos: tuple[VideoRef, ...], names: Names) -> Names:
    """Names of the classes that no video has."""
    present = {video.label for video in videos}
    return tuple(name for label, name in enumerate(names) if label not in present)


def _label(video: VideoRef, manifest: Manifest) -> int:
    if video.label is None:
        raise ValueError(f"{manifest.place(video)}: no label")
    return video.label


def _renumbered(video: VideoRef, manifest: Manifest, labels: list[int | None], names: Names) -> VideoRef:
    assert manifest.classes is not None
    label = labels[_label(video, manifest)]
    if label is None:
        name = manifest.classes[_label(video, manifest)]
        hint = did_you_mean(name, names) if len(names) <= MANY else f"there are {len(names)}"
        raise ValueError(f"{manifest.place(video)}: class {name!r} is none of the classes learnt; {hint}")
    return replace(video, label=label)
