"""Targets: what `target=` may name in a recipe, one of them or several with weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from jaxtyping import Float, Num
from pydantic import BeforeValidator, Field, model_serializer, model_validator
from torch import Tensor

from tubelet.spec import OneOf, Spec
from tubelet.targets.base import Asks, Picture, Score, TargetBase
from tubelet.targets.features import Features
from tubelet.targets.frozen import FrozenTarget, NotReady, without_network
from tubelet.targets.hog import Hog
from tubelet.targets.pixels import FramePixels, NormalisedPixels, Pixels
from tubelet.targets.protocol import Target
from tubelet.targets.pseudo_labels import PseudoLabels
from tubelet.targets.several import SeveralTargets, TargetPart
from tubelet.targets.tokens import Tokens
from tubelet.types import Cube

__all__ = ["AnyTarget", "Several", "Target", "TargetSpec", "WeightedTarget", "trained_target"]

OneTarget = NormalisedPixels | Pixels | FramePixels | Hog | Features | PseudoLabels | Tokens

TargetSpec = Annotated[OneTarget, OneOf()]
"""What a masked model predicts, as a recipe says it. Those that ask a network need it to be read first."""


class WeightedTarget(Spec):
    """A target among several; in a recipe its fields and its weight are one mapping."""

    target: TargetSpec
    weight: float = Field(default=1.0, gt=0, description="what its loss is multiplied by, among several targets")

    @model_validator(mode="before")
    @classmethod
    def _apart(cls, value: Any) -> Any:
        if isinstance(value, str | TargetBase):
            return {"target": value}
        if isinstance(value, dict) and "target" not in value:
            fields = dict(value)
            weight = {"weight": fields.pop("weight")} if "weight" in fields else {}
            return {"target": fields, **weight}
        return value

    @model_serializer
    def _together(self) -> dict[str, Any]:
        return {**self.target.model_dump(mode="json"), "weight": self.weight}


class Several(NotReady):
    """Several targets, written as a list: `target: [{kind: pixels}, {kind: hog, weight: 0.5}]`.

    The loss is the sum of theirs, each times its weight. Of each token a model predicts the numbers of the targets that
    are made from the clip, and then those of the targets that ask a teacher, both in the order of the recipe: so that a
    trained model knows where the first ones are without reading a teacher.
    """

    kind: Literal["several"] = "several"
    parts: tuple[WeightedTarget, ...] = Field(min_length=1)

    @model_serializer
    def _as_list(self) -> list[dict[str, Any]]:
        return [part.model_dump(mode="json") for part in self.parts]

    @property
    def specs(self) -> tuple[TargetSpec, ...]:
        """The targets, in the order of the recipe."""
        return tuple(part.target for part in self.parts)

    @property
    def asks(self) -> Asks | None:
        """What the first of them that asks a teacher asks for."""
        return next((spec.asks for spec in self.specs if spec.asks is not None), None)

    @property
    def teacher(self) -> str | None:
        """That of the first that names one."""
        return next((spec.teacher for spec in self.specs if spec.teacher is not None), None)

    @property
    def picture(self) -> Picture | None:
        """That of `shown`."""
        return self.shown.picture

    @property
    def lacks_colours(self) -> bool:
        """Whether `shown` does."""
        return self.shown.lacks_colours

    @property
    def has_ids(self) -> bool:
        """Not as rows are put together."""
        return False

    @property
    def shown(self) -> TargetSpec:
        """The target that pictures are of: the first that has one, else the first."""
        return next((spec for spec in self.specs if spec.picture is not None), self.specs[0])

    @property
    def shown_columns(self) -> slice:
        """All, until they are ready."""
        return slice(None)

    def loss(
        self, prediction: Float[Tensor, "B K P"], target: Num[Tensor, "B K ..."], weight: Float[Tensor, "B K"]
    ) -> Float[Tensor, ""]:
        """ValueError: known when they are ready."""
        self._unread(prediction, target, weight)

    def score(
        self, prediction: Float[Tensor, "B K P"], target: Num[Tensor, "B K ..."], weight: Float[Tensor, "B K"]
    ) -> Score:
        """ValueError: known when they are ready."""
        self._unread(prediction, target, weight)

    def with_teacher(self, teacher: str) -> Several:
        """A copy in which those that may learn from a stage, and name no teacher, ask this one."""
        parts = (WeightedTarget(target=one.target.with_teacher(teacher), weight=one.weight) for one in self.parts)
        return Several(parts=tuple(parts))

    def ready(self, read: Callable[[Any], FrozenTarget], cube: Cube) -> SeveralTargets:
        """Ready to be asked: `read` gives the target of each spec that asks a teacher."""
        named = list(zip(self._names(), self.parts, strict=True))
        ordered = sorted(named, key=lambda one: one[1].target.asks is not None)
        return SeveralTargets(
            [TargetPart(name, one.target.ready(read, cube), one.weight) for name, one in ordered], cube
        )

    def _names(self) -> list[str]:
        """Kinds; where one occurs more than once, numbered from 1."""
        all_kinds, seen = Counter(spec.kind for spec in self.specs), Counter[str]()
        names = []
        for spec in self.specs:
            seen[spec.kind] += 1
            names.append(spec.kind if all_kinds[spec.kind] == 1 else f"{spec.kind}_{seen[spec.kind]}")
        return names


def _listed(value: Any) -> Any:
    return {"kind": "several", "parts": value} if isinstance(value, list | tuple) else value


AnyTarget = Annotated[OneTarget | Several, OneOf(), BeforeValidator(_listed)]
"""One target, or a list of several: what a recipe holds."""


def trained_target(spec: AnyTarget, width: Callable[[], int], *, cube: Cube, file: Path) -> Target:
    """What the model of a file was trained to predict, `width` numbers a token; networks it asked are not read.

    They are not needed to use it, and give nothing. `width` is called where the recipe alone does not say it. The width
    of one network is what the targets of the clip leave; of several the sum is known, and the first has it.
    """
    left = width() - sum(one.width(cube) for one in spec.specs if one.asks is None) if spec.asks is not None else 0

    def unread(one: Any) -> FrozenTarget:
        nonlocal left
        share, left = left, 0
        return without_network(one, width=share, file=file)

    return spec.ready(unread, cube)
