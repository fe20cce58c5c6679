"""Several runs after one another, each from the weights of one before: progressive training."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError, field_validator, model_validator

from tubelet.recipe.kinds import SINGLE_RUNS, kinds_in_words
from tubelet.recipe.single import SingleRun
from tubelet.spec import Spec, did_you_mean, explain

PREVIOUS: Final = "previous"
ALL: Final = "all"
_RESERVED: Final = (PREVIOUS, ALL, "name", "seed", "stages", "kind")


def _parsed(value: Any) -> str | SingleRun:
    """A recipe from its fields, by its `kind`; a name and a recipe stay as they are."""
    if isinstance(value, str | SingleRun):
        return value
    model = SINGLE_RUNS.get(str(value.get("kind"))) if isinstance(value, dict) else None
    if model is None:
        raise ValueError(f"give the name of a recipe, a YAML file, or a mapping with {kinds_in_words()}")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise ValueError(explain(error, model)) from error


class Stage(Spec):
    """One run. `start` is the stage whose weights it starts from: the one before, an earlier one by its name, or null.

    With null, and in the first stage, the recipe's own `start` counts: a file, a run, or none, which is from scratch.
    `teacher` names an earlier stage in the same way, for a recipe that distils or whose target asks a network; with
    null the recipe's own `distill.teacher` or `target.teacher` counts.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", description="letters, digits, - and _")
    recipe: Annotated[str | SerializeAsAny[SingleRun], BeforeValidator(_parsed)] = Field(
        description="name of a recipe, a YAML file beside this one, or the recipe itself"
    )
    changes: tuple[str, ...] = Field(default=(), description="changes to the recipe: field=value")
    start: str | None = Field(default=PREVIOUS, description="previous, the name of an earlier stage, or null")
    teacher: str | None = Field(default=None, description="earlier stage to learn from: its name, previous, or null")
    evaluate: bool | str = Field(default=False, description="after the stage, test on this list; true: on data.val")

    @field_validator("name")
    @classmethod
    def _not_reserved(cls, name: str) -> str:
        if name in _RESERVED:
            raise ValueError(f"{name!r} has a meaning of its own; choose another name")
        return name

    @property
    def filled(self) -> SingleRun:
        """The recipe of a stage that `resolved` gave."""
        assert not isinstance(self.recipe, str)
        return self.recipe


class ProgressiveRecipe(Spec):
    """Stages of training (VideoMAE V2, arXiv:2303.16727, section 3.4), one after the other."""

    kind: Literal["progressive"] = "progressive"
    name: str
    seed: int | None = Field(default=None, ge=0, description="seed of all stages; null: that of each recipe")
    stages: tuple[Stage, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _stages_in_order(self) -> ProgressiveRecipe:
        names = [stage.name for stage in self.stages]
        for place, stage in enumerate(self.stages):
            if stage.name in names[:place]:
                raise ValueError(f"two stages are called {stage.name!r}")
            known = names[:place]
            if stage.start not in (None, PREVIOUS):
                _check_earlier(f"stage {stage.name!r} starts from", stage.start, known, names)
            if stage.teacher is not None and (stage.teacher != PREVIOUS or place == 0):
                _check_earlier(f"stage {stage.name!r} learns from", stage.teacher, known, names)
        return self

    def start_of(self, place: int) -> int | None:
        """The place of the stage that stage `place` starts from; None where its recipe says what to start from."""
        start = self.stages[place].start
        return None if place == 0 and start == PREVIOUS else self._place_of(start, place)

    def teacher_of(self, place: int) -> int | None:
        """The place of the stage that stage `place` learns from; None where its recipe says, or there is no teacher."""
        return self._place_of(self.stages[place].teacher, place)

    def _place_of(self, name: str | None, place: int) -> int | None:
        if name is None:
            return None
        return place - 1 if name == PREVIOUS else [stage.name for stage in self.stages].index(name)


def _check_earlier(what: str, name: str, earlier: list[str], names: list[str]) -> None:
    if name in earlier:
        return
    if name in names or name == PREVIOUS:
        raise ValueError(f"{what} {name!r}, which is not before it")
    raise ValueError(f"{what} {name!r}, which is no stage; {did_you_mean(name, (PREVIOUS, *earlier))}")
