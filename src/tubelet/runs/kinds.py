"""Every kind of single run. A new one is a recipe, a file in this room, and its lines here and in `SINGLE_RUNS`."""

from __future__ import annotations

from typing import Any, Final

from tubelet.plan.plan import Plan, Question
from tubelet.recipe import SingleRun
from tubelet.runs.finetune import FINETUNE
from tubelet.runs.pretrain import PRETRAIN
from tubelet.runs.runner import Runner

RUNS: Final[dict[str, Runner[Any]]] = {"pretrain": PRETRAIN, "finetune": FINETUNE}
"""What runs a recipe, by its `kind`; the kinds are those of `tubelet.recipe.SINGLE_RUNS`."""


def runner_of(recipe: SingleRun) -> Runner[Any]:
    """What runs this recipe."""
    return RUNS[recipe.kind]


def plan_run(recipe: SingleRun, question: Question) -> Plan:
    """What a run of this recipe takes, as its kind knows it. ValueError for a kind of which nothing can be said."""
    plan = runner_of(recipe).plan
    if plan is None:
        can = " and ".join(kind for kind, runner in RUNS.items() if runner.plan is not None)
        raise ValueError(f"{recipe.name}: what a {recipe.kind} run takes cannot be planned; {can} runs can")
    return plan(recipe, question)
