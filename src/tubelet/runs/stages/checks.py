"""What may be wrong with a stage, found before the first step of the first one."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tubelet.data.class_names import Names, read_names
from tubelet.disk.layout import CLASSES_FILE, MODEL_FOLDER
from tubelet.disk.tensors import State
from tubelet.recipe import EncoderRun, encoder_run
from tubelet.runs.kinds import runner_of
from tubelet.runs.runner import Ahead
from tubelet.runs.stages.folders import Step
from tubelet.train.distributed.process_group import place
from tubelet.weights.checkpoint import Checkpoint


def check_steps(steps: Sequence[Step], *, redone: int) -> None:
    """ValueError in one line that names the stage, for whatever the first look at its data and weights tells.

    Stages before the place `redone` that are finished are left out: what they need may be gone by now.
    """
    look = _Look({step.folder: step for step in steps}, {step.folder for step in steps[:redone] if step.is_finished})
    for step in steps:
        try:
            look.check(step)
        except ValueError as error:
            raise ValueError(f"stage {step.name!r}: {error}") from error
    _check_devices(steps)


@dataclass
class _Look:
    """What is known of the stages: by folder all of them, those that keep their work, and the classes of those seen."""

    steps: Mapping[Path, Step]
    kept: Container[Path]
    names: dict[Path, Names] = field(default_factory=dict)

    def check(self, step: Step) -> None:
        """A stage; those that it needs have been looked at."""
        if step.folder in self.kept:
            self.names[step.folder] = _kept_names(step)
            return
        runner = runner_of(step.recipe)
        ahead = Ahead(start=partial(self._start, step), teacher=partial(self._teacher, step))
        names = self.names[step.folder] = runner.look(step.recipe, ahead)
        if step.evaluate is not False and runner.test is not None:
            runner.test.check(step.recipe, step.evaluate, names)

    def _start(self, step: Step) -> Path | Checkpoint | None:
        """What a stage starts from: weights that are there, or those that the stage before it will give."""
        if step.start is None or step.start in self.kept:
            return None if step.recipe.start is None else step.start or Path(step.recipe.start)
        return self._coming(self.steps[step.start])

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
            state=self._state(before),
            recipe=_encoder_run(before),
            names=self._names(before),
        )

    def _state(self, step: Step) -> State:
        """The tensors that a stage will give, without numbers."""
        shell = runner_of(step.recipe).shell
        assert shell is not None  # the recipes fit each other
        return shell(step.recipe, self.names[step.folder], self._teacher(step)).state_dict()

    def _names(self, step: Step) -> Names | None:
        return self.names[step.folder] if step.recipe.gives_classes else None


def _encoder_run(step: Step) -> EncoderRun:
    return encoder_run(step.recipe, str(step.folder))


def _kept_names(step: Step) -> Names:
    return read_names(step.folder / MODEL_FOLDER / CLASSES_FILE) if step.recipe.gives_classes else ()


def _check_devices(steps: Sequence[Step]) -> None:
    """Processes meet once, for all stages."""
    kinds = {step.recipe.run.device for step in steps}
    if place().world > 1 and len(kinds) > 1:
        raise ValueError(f"under torchrun all stages need one run.device, not {', '.join(sorted(kinds))}")
