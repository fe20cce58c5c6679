"""Every published run of MaskFeat against numbers written by hand (arXiv:2112.09133, SlowFast's configs and zoo)."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from recipes.named import K400, finetuning, pretraining, rates
from tubelet.masks import BlockTube, CubeMask
from tubelet.methods.predictor import MaskedPredictorSpec
from tubelet.models.mvit.model import MViTSpec
from tubelet.models.vit import ViTSpec
from tubelet.plan.count.flops import count_flops
from tubelet.plan.count.step import plan_step
from tubelet.plan.plan import count_parameters
from tubelet.recipes import RECIPES
from tubelet.targets.hog import Hog
from tubelet.types import Cube as CubeSize
from tubelet.video.augment.augment import RandomResizedCrop

IN1K = 1_281_167
OWN = {f"maskfeat-{size}-{kind}" for size in ("ti-cpu", "s-small") for kind in ("pretrain", "finetune")}


@dataclass(frozen=True)
class Pretrained:
    """What the configs say; `node_rate` is for `node` clips, as they are written there."""

    videos: int
    node: int
    node_rate: float
    epochs: int
    warmup: int
    grid: tuple[int, int, int]
    mask: CubeMask | BlockTube


CUBES, BLOCKS = CubeMask(ratio=0.4, cell=(1, 2, 2)), BlockTube(ratio=0.4, cell=(1, 1, 1))
PRETRAIN = {
    "s-k400-300": Pretrained(K400, 32, 1e-4, 300, 10, (8, 14, 14), CUBES),
    "l-k400-800": Pretrained(K400, 32, 1e-4, 800, 10, (8, 14, 14), CUBES),
    "b-in1k-1600": Pretrained(IN1K, 256, 2e-4, 1600, 30, (1, 14, 14), BLOCKS),
    "l-in1k-1600": Pretrained(IN1K, 256, 2e-4, 1600, 30, (1, 14, 14), BLOCKS),
}


@dataclass(frozen=True)
class Finetuned:
    """The same for labels."""

    videos: int
    node: int
    node_rate: float
    epochs: int
    warmup: int
    decay: float
    drop_path: float
    clip_grad: float | None
    clips: int
    views: int
    magnitude: float


FINETUNE = {
    "s-k400-300": Finetuned(K400, 16, 6e-4, 100, 20, 0.75, 0.1, 5.0, 2, 10, 7.0),
    "l-k400-800": Finetuned(K400, 16, 6e-4, 75, 5, 0.875, 0.2, 5.0, 1, 10, 7.0),
    "b-in1k-1600": Finetuned(IN1K, 512, 2e-3, 100, 20, 0.65, 0.1, None, 1, 1, 9.0),
    "l-in1k-1600": Finetuned(IN1K, 256, 1e-3, 50, 5, 0.75, 0.1, None, 1, 1, 9.0),
}


def test_every_recipe_is_looked_at() -> None:
    looked_at = {f"maskfeat-{name}-pretrain" for name in PRETRAIN} | {f"maskfeat-{name}-finetune" for name in FINETUNE}
    assert looked_at | OWN == {name for name in RECIPES if name.startswith("maskfeat-")}


@pytest.mark.parametrize("name", PRETRAIN)
def test_pretraining(name: str) -> None:
    recipe, said = pretraining(f"maskfeat-{name}-pretrain"), PRETRAIN[name]
    assert isinstance(recipe.model, MaskedPredictorSpec)
    assert recipe.clip.grid(recipe.model.encoder.cube) == said.grid
    assert (recipe.mask, recipe.target) == (said.mask, Hog())
    assert recipe.target.width(recipe.model.encoder.cube) == 108
    assert (
        recipe.data.augment.crop.scale == (0.5, 1.0) if isinstance(recipe.data.augment.crop, RandomResizedCrop) else 0
    )
    assert (recipe.data.augment.flip, recipe.data.augment.colour, recipe.data.augment.randaugment) == (0.5, None, None)
    optim = recipe.optim
    assert (optim.betas, optim.weight_decay, optim.clip_grad) == ((0.9, 0.999), 0.05, 0.02)
    per_node = said.node / recipe.run.batch_size
    used = rates(recipe, said.videos)
    assert used.max() * per_node == pytest.approx(said.node_rate)
    assert used[0] * per_node == pytest.approx(1e-6)
    assert used[-1] * per_node == pytest.approx(1e-6, rel=0.01)
    assert (recipe.schedule.epochs, recipe.schedule.warmup_epochs) == (said.epochs, said.warmup)


@pytest.mark.parametrize("name", FINETUNE)
def test_finetuning(name: str) -> None:
    recipe, said = finetuning(f"maskfeat-{name}-finetune"), FINETUNE[name]
    assert (recipe.model.pooling, recipe.model.init_scale) == ("mean", 0.001)
    assert isinstance(recipe.model.encoder, MViTSpec | ViTSpec)
    assert recipe.model.encoder.drop_path == said.drop_path
    optim = recipe.optim
    assert (optim.layer_decay, optim.clip_grad, optim.betas) == (said.decay, said.clip_grad, (0.9, 0.999))
    assert rates(recipe, said.videos).max() * said.node / recipe.run.batch_size == pytest.approx(said.node_rate)
    assert (recipe.schedule.epochs, recipe.schedule.warmup_epochs) == (said.epochs, said.warmup)
    assert (recipe.data.views, recipe.views.clips, recipe.views.crops) == (said.clips, said.views, 1)
    augment = recipe.data.augment
    assert augment.randaugment is not None
    assert (augment.randaugment.operations, augment.randaugment.magnitude) == (2, said.magnitude)
    assert augment.erase is not None
    assert augment.erase.probability == 0.25


@pytest.mark.parametrize(("name", "millions", "multiply_adds"), [("s-k400-300", 36, 71e9), ("l-k400-800", 218, 377e9)])
def test_a_video_classifier_has_the_published_size_and_cost(name: str, millions: int, multiply_adds: float) -> None:
    recipe = finetuning(f"maskfeat-{name}-finetune")
    assert round(count_parameters(recipe)["total"] / 1e6) == millions
    assert count_flops(plan_step(recipe)).forward / 2 == pytest.approx(multiply_adds, rel=0.02)


@pytest.mark.parametrize("name", PRETRAIN)
def test_fine_tuning_is_of_the_encoder_that_was_pre_trained(name: str) -> None:
    before = pretraining(f"maskfeat-{name}-pretrain").model.encoder
    after = finetuning(f"maskfeat-{name}-finetune").model.encoder
    differing = {field for field, value in before.model_dump().items() if value != after.model_dump()[field]}
    is_multiscale = isinstance(before, MViTSpec)
    assert differing == ({"drop_path", "last_stage_stride"} if is_multiscale else {"drop_path"})
    assert after.cube == (CubeSize(2, 32, 32) if is_multiscale else CubeSize(1, 16, 16))
    assert isinstance(before, MViTSpec | ViTSpec)
