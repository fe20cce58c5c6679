"""What may be wrong with a stage, found before the first step of the first one."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from torch import nn

from tubelet.data.order import rank_rows, steps_per_epoch
from tubelet.runs.distill import check_taught, teacher_path
from tubelet.sets.labelled import labelled_sets
from tubelet.sets.labels import Names, read_names, relabelled
from tubelet.weights.classifier import read_classifier
from tubelet.runs.stages.folders import Step
from tubelet.masks import draw_mask
from tubelet.methods.classifier import Classifier
from tubelet.methods.masked import MaskedMethod
from tubelet.recipe import FinetuneRecipe, PretrainRecipe, reading_of
from tubelet.recipe.data import source_names
from tubelet.rng import generator, step_rng
from tubelet.spec import replace
from tubelet.train.distributed.device import pick_device
from tubelet.train.distributed.process_group import place
from tubelet.train.schedule import learning_rates
from tubelet.sets.unlabelled import path_or_none, videos_of_epoch
from tubelet.video.lists.manifest import Manifest, check_unique, read_manifest
from tubelet.weights.checkpoint import Checkpoint
from tubelet.disk.layout import CLASSES_FILE, MODEL_FOLDER
from tubelet.weights.start import classifier_state, masked_state
from tubelet.weights.teachers import planned_target


def check_steps(steps: Sequence[Step], *, redone: int) -> None:
    """ValueError in one line that names the stage, for whatever the first look at its data and weights tells.

    Stages before the place `redone` that are finished are left out: what they need may be gone by now.
    """
    look = _Look({step.folder: step for step in steps}, {step.folder for step in steps[:redone] if step.is_finished})
    for step in steps:
        try:
            if step.folder in look.kept:
                look.names |= _kept_names(step)
            else:
                look.check(step)
        except ValueError as error:
            raise ValueError(f"stage {step.name!r}: {error}") from error
    _check_devices(steps)


def tested_videos(step: Step) -> Manifest:
    """The videos that a stage is tested on. ValueError where it names none that are there."""
    recipe = cast(FinetuneRecipe, step.recipe)
    source = tested_source(step)
    if isinstance(step.evaluate, str):
        return read_manifest(
            source,
            root=path_or_none(recipe.data.root),
            labelled=True,
            clip_frames=recipe.clip.frames,
        )
    sets = labelled_sets(recipe)
    if not sets.val:
        raise ValueError("evaluate: true tests on the validation videos, and none are given; name a list instead")
    if len(sets.val) == 1:
        (only,) = sets.val
        return Manifest(only.videos, sets.names, source)
    named = [dataclasses.replace(one, name=f"{source.name}/{one.name}") for source in sets.val for one in source.videos]
    return Manifest(tuple(named), sets.names, source)


def tested_source(step: Step) -> Path:
    """What the videos are called that a stage is tested on; nothing is read, so they need not be there any more."""
    recipe = cast(FinetuneRecipe, step.recipe)
    if isinstance(step.evaluate, str):
        return Path(step.evaluate)
    data = recipe.data
    named = zip(source_names(data.sources), data.sources, strict=True)
    tested = [name for name, one in named if one.val is not None] if data.sources else [data.val or recipe.name]
    return Path(tested[0] if len(tested) == 1 else recipe.name)


@dataclass
class _Look:
    """What is known of the stages: by folder all of them, those that keep their work, and the classes of those seen."""

    steps: Mapping[Path, Step]
    kept: Container[Path]
    names: dict[Path, Names] = field(default_factory=dict)

    def check(self, step: Step) -> None:
        """A stage that is to run; those that it needs have been looked at."""
        recipe = step.recipe
        pick_device(recipe.run)
        reading_of(recipe.data)
        if isinstance(recipe, PretrainRecipe):
            _check_schedule(recipe, _videos_of_epoch(recipe))
            self._check_masked(recipe, step)
            return
        sets = labelled_sets(recipe)
        _check_schedule(recipe, sum(source.share.slots for source in sets.train))
        self.names[step.folder] = sets.names
        self._check_classifier(recipe, step)
        if step.evaluate is not False:
            tested = tested_videos(step)
            check_unique(tested)
            relabelled(tested, sets.names)
            if tested.classes is None and sets.mixes and recipe.data.class_names is None:
                raise ValueError(f"{tested.source}: labels are plain numbers, which mean nothing among merged classes")

    def _check_masked(self, recipe: PretrainRecipe, step: Step) -> None:
        method = cast(MaskedMethod, self._shell(step))
        draw_mask(recipe, method.grid, generator(recipe.seed, 0))  # may find that its grid cannot be hidden so
        start = self._start(step)
        if start is not None:
            masked_state(method, start, part=recipe.start_part, inflate=recipe.inflate)

    def _check_classifier(self, recipe: FinetuneRecipe, step: Step) -> None:
        names = self.names[step.folder]
        shell, start = cast(Classifier, self._shell(step)), self._start(step)
        if start is not None:
            classifier_state(shell, start, head=recipe.start_head, names=names, inflate=recipe.inflate)
        if recipe.distill is not None:
            teacher = self._teacher(step) or read_classifier(teacher_path(recipe.distill))
            check_taught(teacher, names, recipe.clip)

    def _start(self, step: Step) -> Path | Checkpoint | None:
        """What a stage starts from: weights that are there, or those that the stage before it will give."""
        if step.start is None or step.start in self.kept:
            return None if step.recipe.start is None else step.start or Path(step.recipe.start)
        return self._coming(self.steps[step.start])

    def _shell(self, step: Step) -> nn.Module:
        """The network of a stage without numbers."""
        recipe = step.recipe
        target = planned_target(recipe, self._teacher(step)) if isinstance(recipe, PretrainRecipe) else None
        with step_rng(recipe.seed, 0), torch.device("meta"):
            if isinstance(recipe, PretrainRecipe):
                assert target is not None
                return recipe.model.build(recipe.clip, target)
            return recipe.model.build(recipe.clip, len(self.names[step.folder]))

    def _teacher(self, step: Step) -> Checkpoint | None:
        """What the stage that it learns from will be; None where that, or a file, is there to be read."""
        if step.teacher is None or step.teacher in self.kept:
            return None
        return self._coming(self.steps[step.teacher])

    def _coming(self, before: Step) -> Checkpoint:
        """What a stage will give, without numbers."""
        return Checkpoint(
            file=before.folder,
            format=f"the stage {before.name!r}",
            state=self._shell(before).state_dict(),
            recipe=before.recipe,
            names=self.names.get(before.folder),
        )


def _check_schedule(recipe: PretrainRecipe | FinetuneRecipe, videos: int) -> None:
    """Enough videos for a batch, a batch that the processes can share, a warm-up that fits."""
    batch = recipe.run.batch_size
    rank_rows(batch, rank=place().rank, world=place().world)
    steps = steps_per_epoch(videos, batch)
    learning_rates(recipe.optim, recipe.schedule, batch_size=batch, steps_per_epoch=steps)


def _videos_of_epoch(recipe: PretrainRecipe) -> int:
    """At least so many: long videos count once here, as to cut them takes a look at every file."""
    whole = tuple(replace(source, segment_seconds=None) for source in recipe.data.sources)
    videos = videos_of_epoch(replace(recipe, data=replace(recipe.data, sources=whole)), _nobody)
    if videos is None:
        raise ValueError("no videos to train on: set data.videos or data.sources")
    if videos < recipe.run.batch_size and whole != recipe.data.sources:
        return videos_of_epoch(recipe, _nobody) or 0
    return videos


def _kept_names(step: Step) -> dict[Path, Names]:
    if isinstance(step.recipe, PretrainRecipe):
        return {}
    return {step.folder: read_names(step.folder / MODEL_FOLDER / CLASSES_FILE)}


def _check_devices(steps: Sequence[Step]) -> None:
    """Processes meet once, for all stages."""
    kinds = {step.recipe.run.device for step in steps}
    if place().world > 1 and len(kinds) > 1:
        raise ValueError(f"under torchrun all stages need one run.device, not {', '.join(sorted(kinds))}")


def _nobody(line: str) -> None:
    """Hears nothing."""
