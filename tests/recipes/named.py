"""Recipes by name and kind, and the learning rates that one of them gives on a set of so many videos."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from tubelet.recipe import EncoderRun, FinetuneRecipe, PretrainRecipe
from tubelet.recipes import RECIPES
from tubelet.train.schedule import learning_rates

K400, K600, K710 = 240_436, 366_006, 658_340
SSV2, UCF101, HMDB51, HYBRID = 168_913, 9_537, 3_570, 1_348_000


def pretraining(name: str) -> PretrainRecipe:
    recipe = RECIPES[name]()
    assert isinstance(recipe, PretrainRecipe)
    return recipe


def finetuning(name: str) -> FinetuneRecipe:
    recipe = RECIPES[name]()
    assert isinstance(recipe, FinetuneRecipe)
    return recipe


def rates(recipe: EncoderRun, videos: int) -> Float64[np.ndarray, " steps"]:
    batch = recipe.run.batch_size
    return learning_rates(recipe.optim, recipe.schedule, batch_size=batch, steps_per_epoch=videos // batch)
