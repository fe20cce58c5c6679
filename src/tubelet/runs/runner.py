"""The seam of kinds of run: what a kind gives, so that commands, stages and plans need not know which one it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar, runtime_checkable

from torch import nn

from tubelet.data.class_names import Names
from tubelet.plan.plan import Plan, Question
from tubelet.recipe import SingleRun
from tubelet.train.records.watch import Watch
from tubelet.video.lists.manifest import Manifest
from tubelet.weights.checkpoint import Checkpoint

RecipeT = TypeVar("RecipeT", bound=SingleRun)
RecipeIn = TypeVar("RecipeIn", bound=SingleRun, contravariant=True)


@runtime_checkable
class Train(Protocol[RecipeIn]):
    """Trains as the recipe says in the run folder `out`; returns its folder `model/`.

    A run folder that holds work is continued, unless `fresh`, which removes that work once nothing of the request can
    be refused any more. ValueError in one line for whatever the user can mend. Under torchrun all ranks call this.
    """

    def __call__(self, recipe: RecipeIn, out: Path, watch: Watch, *, fresh: bool = False) -> Path: ...


@dataclass(frozen=True)
class Ahead:
    """What a stage will find when it begins, known before the first stage has run.

    `start` gives what its first weights are from: a path, weights that an earlier stage will give (without numbers), or
    None. `teacher` gives the network of the stage that it learns from, None where a path in its recipe says which.
    """

    start: Callable[[], Path | Checkpoint | None]
    teacher: Callable[[], Checkpoint | None]


@runtime_checkable
class StageTest(Protocol[RecipeIn]):
    """How a finished stage is tested. `asked` is the field `evaluate` of the stage: a list, or True."""

    def source(self, recipe: RecipeIn, asked: bool | str) -> Path:
        """What the videos are called; nothing is read, so they need not be there any more."""

    def videos(self, recipe: RecipeIn, asked: bool | str) -> Manifest:
        """The videos. ValueError where there are none."""

    def check(self, recipe: RecipeIn, asked: bool | str, names: Names) -> None:
        """ValueError for videos or labels that the test would refuse; `names` are the classes of the stage."""

    def views(self, recipe: RecipeIn) -> tuple[int, int]:
        """Test views of each video: clips in time, crops in space."""

    def run(self, folder: Path, videos: Manifest, out: Path, watch: Watch) -> None:
        """Test the finished run in `folder`; writes metrics.json, with `top1` or not, to `out`."""


@dataclass(frozen=True)
class Runner(Generic[RecipeT]):
    """A kind of run: its recipe, what trains it, and what stages and plans ask of it.

    `label` is what it does in a message ("pre-training"), `next_step` the command that usually follows, in which FOLDER
    is the run folder. `look` takes a first look at data and weights of a run that is to begin: ValueError in one line
    for whatever that tells; it gives the names of its classes, () where it has none. `shell` builds its finished model
    without numbers, from the names of its classes and the network of its teacher; None where no other run can start or
    learn from it. `plan` says what a run takes (`tubelet plan`), None where nothing can be said.
    """

    recipe: type[RecipeT]
    label: str
    run: Train[RecipeT]
    look: Callable[[RecipeT, Ahead], Names]
    next_step: str = "tubelet weights inspect FOLDER"
    shell: Callable[[RecipeT, Names, Checkpoint | None], nn.Module] | None = None
    test: StageTest[RecipeT] | None = None
    plan: Callable[[RecipeT, Question], Plan] | None = None
