"""What the loop is given to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from tubelet.data.loader import TrainingSet
from tubelet.recipe import FinetuneRecipe, PretrainRecipe
from tubelet.train.ema import Ema
from tubelet.train.optim import ParameterGroup


@dataclass(frozen=True)
class Job:
    """What to train. `method` has `forward(batch) -> Output` and `count(batch) -> float`, and its first weights.

    `groups` are its parameters to train. `after_epoch` is called with the number of the epoch that ended, from 0, and
    gives metrics for the log; `ema` averages the weights of `method`.
    """

    recipe: PretrainRecipe | FinetuneRecipe
    out: Path
    method: nn.Module
    groups: tuple[ParameterGroup, ...]
    dataset: TrainingSet
    after_epoch: Callable[[int], Mapping[str, float]] | None = None
    ema: Ema | None = None
