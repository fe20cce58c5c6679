"""The labelled videos of a recipe: one set with its labels, or several merged into one space of labels by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tubelet.data.class_names import Names
from tubelet.data.dataset import ClipDataset
from tubelet.data.label_space import LabelSpace, merged, normalised, read_label_space, read_renames, renamed, rows
from tubelet.data.labels import MANY
from tubelet.data.mixed import MixedDataset, Source
from tubelet.data.mixture import Mixture
from tubelet.recipe import FinetuneRecipe, LabelledData, LabelledSource
from tubelet.recipe.data import source_names
from tubelet.sets.unlabelled import Say, clip_plan, path_or_none, training_set
from tubelet.spec import did_you_mean
from tubelet.video.lists.manifest import Manifest, VideoRef, check_labels, read_manifest


@dataclass(frozen=True)
class LabelledSets:
    """What a classifier learns from, what it is looked at with after each epoch, and the names of its classes.

    Labels of all videos index `names`, which are none for a task without classes. `mixes` is False where there is one
    set that is no mixture. `notes` are those of the lists.
    """

    names: Names
    train: tuple[Source, ...]
    val: tuple[Source, ...]
    mixes: bool
    notes: tuple[str, ...] = ()

    @property
    def videos(self) -> tuple[VideoRef, ...]:
        """Training videos of all sources."""
        return tuple(video for source in self.train for video in source.videos)

    def dataset(self, recipe: FinetuneRecipe, say: Say) -> tuple[ClipDataset | MixedDataset, Mixture | None]:
        """Training clips, and what an epoch takes of them, which `say` is told."""
        plan = replace(clip_plan(recipe), label=recipe.task.label)
        return training_set(self.train, plan, mixes=self.mixes, say=say)


def labelled_sets(recipe: FinetuneRecipe) -> LabelledSets:
    """Read the lists of a recipe. ValueError in one line for what is not there, or labels that fit nowhere."""
    data = recipe.data
    if data.sources:
        return _merged_sets(recipe)
    if data.train is None:
        raise ValueError("no videos to train on: give a list or a folder with --train (recipe field data.train)")
    train = _read(recipe, data.train, data.root)
    task = recipe.task
    names = task.names(train, names_file=path_or_none(data.class_names), classes=recipe.classes)
    learnt = Source(data.train, task.labelled(train, names))
    if data.val is None:
        return LabelledSets(names, (learnt,), (), mixes=False, notes=train.notes)
    val = _read(recipe, data.val, data.root)
    tested = Source(data.val, task.labelled(val, names))
    return LabelledSets(names, (learnt,), (tested,), mixes=False, notes=(*train.notes, *val.notes))


def _read(recipe: FinetuneRecipe, source: str, root: str | None) -> Manifest:
    return read_manifest(Path(source), root=path_or_none(root), labelled=True, clip_frames=recipe.clip.frames)


def _merged_sets(recipe: FinetuneRecipe) -> LabelledSets:
    read = [_Labelled(name, source, recipe) for name, source in _named(recipe.data)]
    given = recipe.data.class_names
    space = merged(one.renamed for one in read) if given is None else read_label_space(Path(given))
    if recipe.classes is not None and recipe.classes != len(space):
        what = "the sources have together" if given is None else f"{given} names"
        raise ValueError(f"{what} {len(space)} classes but the recipe says classes={recipe.classes}; make them agree")
    if len(space) < 2:
        raise ValueError(f"one class only ({space.names[0]}) in all sources; a classifier needs at least two")
    where = "the training videos of all sources" if given is None else given
    train = tuple(one.placed(one.train, space, where) for one in read)
    val = tuple(one.placed(one.val, space, where) for one in read if one.val is not None)
    notes = tuple(note for one in read for note in one.notes)
    return LabelledSets(space.names, train, val, mixes=True, notes=notes)


def _named(data: LabelledData) -> Sequence[tuple[str, LabelledSource]]:
    return list(zip(source_names(data.sources), data.sources, strict=True))


class _Labelled:
    """A source as it was read: its lists, its new names for classes, and all its classes under these (`renamed`)."""

    def __init__(self, name: str, source: LabelledSource, recipe: FinetuneRecipe) -> None:
        self.name, self.source = name, source
        root = source.root or recipe.data.root
        self.train = _read(recipe, source.train, root)
        self.val = None if source.val is None else _read(recipe, source.val, root)
        self.notes = (*self.train.notes, *(() if self.val is None else self.val.notes))
        self._renames = {} if source.renames is None else read_renames(Path(source.renames))
        self._named = None if source.class_names is None else read_label_space(Path(source.class_names))
        self._space = self._classes_of(self.train) if self._named is None else self._named
        try:
            self.renamed = renamed(self._space, self._renames)
        except ValueError as error:
            raise ValueError(f"{source.renames}: {error} in source {name}") from error

    def placed(self, manifest: Manifest, space: LabelSpace, where: str) -> Source:
        """The videos of a list with labels of the merged `space`; ValueError for a class that has no place there."""
        own = self._classes_of(manifest)
        check_labels(manifest, len(own))
        known = {old: new for old, new in self._renames.items() if normalised(old) in own.labels}
        label = rows(own, space, known)
        for video in manifest.videos:
            if label[video.label or 0] < 0:
                name = own.names[video.label or 0]
                hint = did_you_mean(name, space.names) if len(space) <= MANY else f"there are {len(space)}"
                raise ValueError(
                    f"{manifest.place(video)}: class {name!r} of source {self.name} is none of the classes of {where}; "
                    f"{hint} (renames of the source can say so)"
                )
        videos = tuple(replace(video, label=int(label[video.label or 0])) for video in manifest.videos)
        return Source(self.name, videos, self.source.weight, self.source.sampler, self.source.augment)

    def _classes_of(self, manifest: Manifest) -> LabelSpace:
        """What the labels of a list mean: the classes that it names itself, else those of `class_names`."""
        if manifest.classes is not None:
            try:
                return LabelSpace(manifest.classes)
            except ValueError as error:
                raise ValueError(f"{manifest.source}: {error}") from error
        if self._named is None:
            raise ValueError(
                f"{manifest.source}: labels are plain numbers, which mean nothing beside other sources; give "
                f"class_names for source {self.name}, a file with one class name a line"
            )
        return self._named
