"""What a plan says of a teacher: it is asked, not trained, and is in no number of the plan but those measured."""

from __future__ import annotations

import math
from pathlib import Path

from tubelet.recipe import FinetuneRecipe, PretrainRecipe
from tubelet.spec import replace
from tubelet.targets.frozen import FrozenSpec
from tubelet.train.flops import count_flops
from tubelet.train.shapes import layout
from tubelet.weights.read import read_model


def teacher_notes(recipe: FinetuneRecipe) -> list[str]:
    """A line for the user where the recipe has a teacher. ValueError where its file is damaged or no classifier."""
    if recipe.distill is None:
        return []
    left_out = "the teacher's forward pass and weights are not in these numbers"
    if recipe.distill.teacher is None or not Path(recipe.distill.teacher).exists():
        return [f"{left_out}; with distill.teacher naming one that is here they would be told"]
    found = read_model(Path(recipe.distill.teacher))
    if not isinstance(found.recipe, FinetuneRecipe) or not found.has_head:
        raise ValueError(f"{found.file}: no classes in it ({found.format}), so it cannot be a teacher")
    numbers = sum(math.prod(value.shape) for value in found.state.values())
    forward = count_flops(layout(found.recipe)).forward
    student = count_flops(layout(replace(recipe, distill=None))).training
    return [
        f"{left_out}: {forward / 1e9:.4g} G a clip, {forward / student:.0%} of the student's training; "
        f"{4 * numbers / 1e9:.3g} GB whole on each device"
    ]


def target_notes(recipe: PretrainRecipe) -> list[str]:
    """A line for the user where a frozen network gives the targets."""
    if not isinstance(recipe.target, FrozenSpec):
        return []
    return [
        f"the network that gives the targets ({recipe.target.teacher}) is in no number here but those of real steps; "
        "each device holds it whole"
    ]
