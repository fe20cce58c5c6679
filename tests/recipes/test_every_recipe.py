"""Every shipped recipe is built, written, read back and stepped once."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from tubelet.masks import draw_mask
from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.methods.classifier import Finetuning
from tubelet.methods.distillation import Distillation, Teacher
from tubelet.models.mvit.model import MViTSpec
from tubelet.models.vit import ViTSpec
from tubelet.recipe import FinetuneRecipe, PretrainRecipe, override, parse_recipe, to_yaml
from tubelet.recipes import RECIPES
from tubelet.rng import generator, step_rng
from tubelet.runs.finetune import finetuning_groups
from tubelet.train.building import build_method
from tubelet.train.optim import Optimizer, ParameterGroup, parameter_groups
from tubelet.types import Batch, Clips, Mask

SIZE = {"width": 24, "depth": 2, "heads": 2}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_yaml(name: str) -> None:
    recipe = RECIPES[name]()
    assert recipe.name == name
    assert parse_recipe(to_yaml(recipe), name) == recipe


@pytest.mark.parametrize("name", [name for name in RECIPES if not name.startswith("demo-")])
def test_a_recipe_says_its_hardware_and_its_command(name: str) -> None:
    text = " ".join((RECIPES[name].__doc__ or "").split())
    assert "Hardware" in text
    assert f"Command: tubelet {RECIPES[name]().kind} {name} --" in text


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_cuts_its_batch_into_equal_pieces(name: str) -> None:
    run = RECIPES[name]().run
    assert run.batch_size % run.accumulate == 0


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_takes_a_step(name: str) -> None:
    """Shrunk to two narrow blocks and a grid of 2 x 4 x 4; cubes of 14, masks, target, mixing and groups stay."""
    torch.set_num_threads(1)
    recipe = shrunk(RECIPES[name]())
    method, groups = method_of(recipe)
    optimizer = Optimizer(groups, dict(method.named_parameters()), recipe.optim)
    before = [value.detach().clone() for value in method.parameters()]
    with step_rng(recipe.seed, 1):
        loss = method(random_batch(recipe)).loss
    loss.backward()
    assert torch.isfinite(loss)
    optimizer.step(1e-3)
    untouched = [
        key for (key, new), old in zip(method.named_parameters(), before, strict=True) if torch.equal(old, new)
    ]
    assert untouched == []


def shrunk(recipe: PretrainRecipe | FinetuneRecipe) -> PretrainRecipe | FinetuneRecipe:
    encoder, cube = recipe.model.encoder, recipe.model.encoder.cube
    assert isinstance(encoder, MViTSpec | ViTSpec)
    changes = multiscale(encoder) if isinstance(encoder, MViTSpec) else plain(encoder)
    side = cube.height if isinstance(encoder, MViTSpec) or cube.height == 14 else 8
    changes += [f"clip.frames={2 * cube.frames}", f"clip.size={4 * side}"]
    if isinstance(recipe, PretrainRecipe):
        decoder = [f"model.decoder.{key}={value}" for key, value in SIZE.items()]
        return override(recipe, [*changes, *(decoder if isinstance(recipe.model, MaskedAutoencoderSpec) else [])])
    # Without drop path and with a head that is not nearly zero, so that a gradient reaches every parameter.
    return override(recipe, [*changes, "model.encoder.drop_path=0", "model.init_scale=1", "classes=3"])


def plain(encoder: ViTSpec) -> list[str]:
    """Cubes of 14 x 14 are ViT-g's own, and tubelets of one frame an image model's."""
    patch = 14 if encoder.patch == 14 else 8
    return [*(f"model.encoder.{key}={value}" for key, value in SIZE.items()), f"model.encoder.patch={patch}"]


def multiscale(encoder: MViTSpec) -> list[str]:
    """As many stages, one block each behind the first; strides, widening and the grid that comes out stay."""
    stages = [{**stage.model_dump(), "start": number} for number, stage in enumerate(encoder.stages, start=1)]
    changes = [f"stages={json.dumps(stages)}", "width=8", "heads=1", f"depth={len(stages) + 1}"]
    return [f"model.encoder.{change}" for change in changes]


def method_of(recipe: PretrainRecipe | FinetuneRecipe) -> tuple[nn.Module, tuple[ParameterGroup, ...]]:
    if isinstance(recipe, PretrainRecipe):
        method = build_method(recipe)
        named = dict(method.named_parameters())
        return method, parameter_groups(method, weight_decay=recipe.optim.weight_decay)
    with step_rng(recipe.seed, 0):
        classifier, teacher = (recipe.model.build(recipe.clip, 3) for _ in range(2))
    if recipe.distill is None:
        tuning: Finetuning | Distillation = Finetuning(classifier, recipe.mixing)
    else:
        taught = Teacher(teacher, columns=torch.arange(3))
        tuning = Distillation(classifier, recipe.mixing, teacher=taught, distill=recipe.distill)
    return tuning.train(), finetuning_groups(tuning, recipe)


def random_batch(recipe: PretrainRecipe | FinetuneRecipe) -> Batch:
    rng = generator(1)
    frames, size = recipe.clip.frames, recipe.clip.size
    video = torch.from_numpy(rng.integers(0, 256, (4, 3, frames, size, size), dtype=np.uint8))
    clips = {"video": Clips(video, torch.arange(4))}
    if isinstance(recipe, FinetuneRecipe):
        return Batch(clips, labels=torch.tensor([0, 1, 2, 0]))
    grid = recipe.clip.grid(recipe.model.encoder.cube)
    masks = torch.cat([draw_mask(recipe, grid, rng).stacked() for _ in range(4)])
    return Batch(clips, {"video": Mask.unstacked(masks).split()})
