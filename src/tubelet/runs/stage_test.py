"""The test of a stage with labels: on its validation videos, or on a list of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from tubelet.data.class_names import Names
from tubelet.eval.evaluate import evaluate
from tubelet.recipe import FinetuneRecipe
from tubelet.recipe.data import source_names
from tubelet.sets.labelled import labelled_sets
from tubelet.sets.unlabelled import path_or_none
from tubelet.train.records.watch import Watch
from tubelet.video.lists.manifest import Manifest, check_unique, read_manifest


class LabelledTest:
    """A `tubelet.runs.runner.StageTest` of recipes with labelled videos."""

    def source(self, recipe: FinetuneRecipe, asked: bool | str) -> Path:
        if isinstance(asked, str):
            return Path(asked)
        data = recipe.data
        named = zip(source_names(data.sources), data.sources, strict=True)
        tested = [name for name, one in named if one.val is not None] if data.sources else [data.val or recipe.name]
        return Path(tested[0] if len(tested) == 1 else recipe.name)

    def videos(self, recipe: FinetuneRecipe, asked: bool | str) -> Manifest:
        source = self.source(recipe, asked)
        if isinstance(asked, str):
            root, frames = path_or_none(recipe.data.root), recipe.clip.frames
            return read_manifest(source, root=root, labelled=True, clip_frames=frames)
        sets = labelled_sets(recipe)
        if not sets.val:
            raise ValueError("evaluate: true tests on the validation videos, and none are given; name a list instead")
        if len(sets.val) == 1:
            (only,) = sets.val
            return Manifest(only.videos, sets.names, source)
        named = [replace(one, name=f"{source.name}/{one.name}") for source in sets.val for one in source.videos]
        return Manifest(tuple(named), sets.names, source)

    def check(self, recipe: FinetuneRecipe, asked: bool | str, names: Names) -> None:
        tested = self.videos(recipe, asked)
        check_unique(tested)
        recipe.task.labelled(tested, names)
        data = recipe.data
        if tested.classes is None and data.sources and data.class_names is None:
            raise ValueError(f"{tested.source}: labels are plain numbers, which mean nothing among merged classes")

    def views(self, recipe: FinetuneRecipe) -> tuple[int, int]:
        return recipe.views.clips, recipe.views.crops

    def run(self, folder: Path, videos: Manifest, out: Path, watch: Watch) -> None:
        evaluate(folder, videos, watch=watch, allow_missing=True, out=out)


LABELLED_TEST: Final = LabelledTest()
