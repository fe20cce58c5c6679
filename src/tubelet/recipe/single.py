"""What every single run has in common, whatever it trains: the seam that a new kind of run fits.

A new kind is a subclass of `SingleRun` in a file of this room, a line in `tubelet.recipe.kinds.SINGLE_RUNS`, and a
runner in `tubelet.runs` (docs/add-a-run.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Final

from pydantic import Field

from tubelet.models.encoders import EncoderSpec
from tubelet.recipe.data import Data, LabelledData
from tubelet.recipe.run import Optim, Run, Schedule
from tubelet.spec import Spec
from tubelet.types import ClipShape


class SingleRun(Spec):
    """Base of the recipes of single runs. Every subclass has the fields that stand here for the type checker, too.

    They are declared by each kind itself, so that its YAML has them in the order that reads best. `does` and `gives`
    are words for messages: what the run does ("pre-trains"), and what it leaves ("a classifier without a decoder").
    """

    does: ClassVar[str]
    gives: ClassVar[str]
    can_be_tested: ClassVar[bool] = False
    """Whether the finished run can be evaluated on labelled videos (`evaluate` of a stage)."""

    kind: str
    name: str
    seed: int = Field(default=0, ge=0)
    if TYPE_CHECKING:
        clip: ClipShape
        data: Data | LabelledData
        optim: Optim
        schedule: Schedule
        run: Run
        start: str | None

    @property
    def encoder(self) -> EncoderSpec | None:
        """What it trains as an encoder, None where it trains none."""
        return None

    @property
    def gives_classes(self) -> bool:
        """Whether its finished model has classes, whose names are written beside the weights."""
        return False

    @property
    def teacher(self) -> str | None:
        """The path of the network that it learns from, None where it asks none."""
        return None

    def with_teacher(self, teacher: str) -> SingleRun:
        """The recipe that learns from the network at this path; only for recipes that passed `check_teacher`."""
        raise AssertionError(f"a {self.kind} run learns from no network: {teacher}")

    def with_counts_of(self, kept: SingleRun) -> SingleRun:
        """The recipe with what the run `kept`, begun with it, counted in its data, such as the number of classes."""
        del kept
        return self

    def networks(self) -> Mapping[str, Spec]:
        """Networks of the run by their field; a run that starts from it must have the same ones."""
        return {}

    def check_start(self, where: str, before: SingleRun | None, name: str) -> None:
        """ValueError where it cannot start from the run `before`, the stage called `name`, for what both are.

        With None the recipe itself says what it starts from. `where` begins the message.
        """
        if before is None:
            return
        mine, theirs = self.networks(), before.networks()
        if not mine.keys() & theirs.keys():
            raise ValueError(f"{where} {self.does} and cannot start from {name!r}, {before.gives}")
        for part in mine.keys() & theirs.keys():
            here, there = _facts(mine[part]), _facts(theirs[part])
            if before.clip.frames == 1 < self.clip.frames:  # images: kernels are inflated
                here, there = _in_space(here), _in_space(there)
            for field, value in here.items():
                if there.get(field) != value:
                    raise ValueError(
                        f"{where}: {part}.{field} is {value}, but {there.get(field)} in {name!r}, "
                        "which it starts from; make them agree"
                    )

    def check_teacher(self, where: str, before: SingleRun, name: str) -> None:
        """ValueError where it cannot learn from the run `before`, the stage called `name`."""
        del before
        raise ValueError(f"{where} has a teacher, stage {name!r}, but a {self.kind} run learns from none: take it out")


def check_one_teacher(where: str, own: str | None, name: str) -> None:
    """ValueError where a recipe whose stage learns from the stage `name` has a teacher of its `own`."""
    if own is not None:
        raise ValueError(f"{where} learns from stage {name!r}, and its recipe from {own}; take one out")


_MAY_DIFFER: Final = frozenset(
    {"drop_path", "checkpointing", "norm_eps", "final_norm_eps", "positions", "layer_scale"},
)
"""Fields of a network that may change from stage to stage; of the layer scale only whether there is one matters."""


_IN_TIME: Final = frozenset({"tubelet", "relative_time"})
"""Fields that say how an encoder sees time; and the first of three numbers does (time, down, across)."""


def _in_space(facts: dict[str, object]) -> dict[str, object]:
    """What is left of the facts without time."""
    return {name: _down_and_across(value) for name, value in facts.items() if name not in _IN_TIME}


def _down_and_across(value: object) -> object:
    if isinstance(value, dict):
        return {name: _down_and_across(inner) for name, inner in value.items()}
    if isinstance(value, list) and len(value) == 3 and all(isinstance(number, int) for number in value):
        return value[1:]
    return [_down_and_across(inner) for inner in value] if isinstance(value, list) else value


def _facts(network: Spec) -> dict[str, object]:
    """What two networks must share, by field: facts that show in no shape, such as heads, too."""
    fields = network.model_dump(mode="json")
    facts = {name: value for name, value in fields.items() if name not in _MAY_DIFFER}
    if "layer_scale" in fields:
        facts["layer_scale (set or not)"] = fields["layer_scale"] is not None
    return facts
