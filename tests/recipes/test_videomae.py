"""Every shipped recipe is built, written, read back, checked against numbers written by hand, and stepped once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from jaxtyping import Float64
from torch import nn

from tubelet.eval.finetune import finetuning_groups
from tubelet.methods.classifier import Finetuning
from tubelet.recipe import FinetuneRecipe, PretrainRecipe, override, parse_recipe, to_yaml
from tubelet.recipes import RECIPES
from tubelet.rng import generator, step_rng
from tubelet.train.optim import Optimizer, ParameterGroup, parameter_groups
from tubelet.train.pretrain import build_method
from tubelet.train.schedule import learning_rates
from tubelet.types import Batch, Clips, Mask

KINETICS, SOMETHING, UCF, HMDB = 240_436, 168_913, 9_537, 3_570

# name: width, encoder blocks, decoder width, decoder blocks, hidden cubes of 196 a frame pair, stride,
#       videos a step, highest lr used, epochs, steps
PRETRAIN = {
    "s-k400-1600": (384, 12, 192, 4, 176, 4, 1024, 6.0e-4, 1600, 234 * 1600),
    "b-k400-800": (768, 12, 384, 4, 176, 4, 2048, 1.2e-3, 800, 117 * 800),
    "b-k400-1600": (768, 12, 384, 4, 176, 4, 2048, 1.2e-3, 1600, 117 * 1600),
    "l-k400-1600": (1024, 24, 512, 12, 176, 4, 512, 3.0e-4, 1600, 469 * 1600),
    "h-k400-1600": (1280, 32, 640, 12, 176, 4, 1024, 6.0e-4, 1600, 234 * 1600),
    "s-ssv2-2400": (384, 12, 192, 4, 176, 2, 1024, 6.0e-4, 2400, 164 * 2400),
    "b-ssv2-800": (768, 12, 384, 4, 176, 2, 2048, 1.2e-3, 800, 82 * 800),
    "b-ssv2-2400": (768, 12, 384, 4, 176, 2, 2048, 1.2e-3, 2400, 82 * 2400),
    "l-ssv2-2400": (1024, 24, 512, 12, 176, 2, 512, 3.0e-4, 2400, 329 * 2400),
    "b-ucf101-3200": (768, 12, 384, 4, 147, 4, 192, 2.25e-4, 3200, 49 * 3200),
    "b-hmdb51-4800": (768, 12, 384, 4, 147, 2, 192, 2.25e-4, 4800, 18 * 4800),
}
# name: width, blocks, drop path, dropout, sampler, flip, clips a video, videos a step, highest lr used,
#       lowest lr x 256 / batch, epochs, layer decay, test clips x crops
FINETUNE = {
    "s-k400-1600": (384, 12, 0.1, 0.0, "span", 0.5, 2, 384, 7.5e-4, 1e-6, 150, 0.75, (5, 3)),
    "b-k400-800": (768, 12, 0.1, 0.0, "span", 0.5, 1, 512, 2.0e-3, 1e-6, 100, 0.75, (5, 3)),
    "b-k400-1600": (768, 12, 0.1, 0.0, "span", 0.5, 2, 384, 7.5e-4, 1e-6, 75, 0.75, (5, 3)),
    "l-k400-1600": (1024, 24, 0.1, 0.0, "span", 0.5, 2, 128, 1.0e-3, 1e-6, 35, 0.75, (5, 3)),
    "h-k400-1600": (1280, 32, 0.2, 0.5, "span", 0.5, 2, 512, 2.0e-3, 1e-5, 50, 0.75, (5, 3)),
    "s-ssv2-2400": (384, 12, 0.1, 0.0, "segments", 0.0, 2, 384, 1.5e-3, 1e-6, 40, 0.7, (2, 3)),
    "b-ssv2-800": (768, 12, 0.1, 0.0, "segments", 0.0, 1, 512, 1.0e-3, 1e-6, 50, 0.75, (2, 3)),
    "b-ssv2-2400": (768, 12, 0.1, 0.0, "segments", 0.0, 2, 384, 7.5e-4, 1e-6, 30, 0.75, (2, 3)),
    "l-ssv2-2400": (1024, 24, 0.2, 0.5, "segments", 0.0, 2, 512, 1.0e-3, 1e-6, 30, 0.75, (2, 3)),
    "b-ucf101-3200": (768, 12, 0.2, 0.5, "span", 0.5, 2, 128, 2.5e-4, 1e-5, 100, 0.7, (5, 3)),
    "b-hmdb51-4800": (768, 12, 0.2, 0.5, "span", 0.5, 2, 128, 5.0e-4, 1e-5, 50, 0.7, (10, 3)),
}
VIDEOS = {"k400": KINETICS, "ssv2": SOMETHING, "ucf101": UCF, "hmdb51": HMDB}


def pretraining(name: str) -> PretrainRecipe:
    recipe = RECIPES[name]()
    assert isinstance(recipe, PretrainRecipe)
    return recipe


def finetuning(name: str) -> FinetuneRecipe:
    recipe = RECIPES[name]()
    assert isinstance(recipe, FinetuneRecipe)
    return recipe


def rates(recipe: PretrainRecipe | FinetuneRecipe, videos: int) -> Float64[np.ndarray, " steps"]:
    batch = recipe.run.batch_size
    return learning_rates(recipe.optim, recipe.schedule, batch_size=batch, steps_per_epoch=videos // batch)


def test_the_tables_name_every_published_run() -> None:
    published = {name for name in RECIPES if name.startswith("videomae-") and set(name.split("-")) & set(VIDEOS)}
    tables = {f"videomae-{run}-pretrain" for run in PRETRAIN} | {f"videomae-{run}-finetune" for run in FINETUNE}
    assert published == tables


@pytest.mark.parametrize("run", PRETRAIN)
def test_pretraining_numbers(run: str) -> None:
    recipe = pretraining(f"videomae-{run}-pretrain")
    width, depth, decoder_width, decoder_depth, hidden, stride, batch, highest, epochs, steps = PRETRAIN[run]
    encoder, decoder = recipe.model.encoder, recipe.model.decoder
    assert (encoder.width, encoder.depth, decoder.width, decoder.depth) == (width, depth, decoder_width, decoder_depth)
    assert width // encoder.heads in (64, 80)
    grid = recipe.clip.grid(encoder.cube)
    assert tuple(grid) == (8, 14, 14)
    assert int(recipe.mask(grid, generator(0))[0].sum()) == hidden
    assert recipe.data.sampler.model_dump() == {"kind": "strided", "stride": stride}
    assert recipe.data.augment.flip == 0.0
    used = rates(recipe, VIDEOS[run.split("-")[1]])
    assert len(used) == steps
    assert recipe.schedule.epochs == epochs
    assert recipe.run.batch_size == batch
    assert used.max() == pytest.approx(highest)
    assert used[0] == 0.0
    assert used[-1] == pytest.approx(1e-5 * batch / 256, rel=1e-2)
    assert int(used.argmax()) == 40 * steps // epochs - 1
    assert recipe.optim.betas == (0.9, 0.95)
    assert recipe.optim.weight_decay == 0.05
    assert recipe.optim.clip_grad is None
    assert recipe.target.kind == "normalised_pixels"


@pytest.mark.parametrize("run", FINETUNE)
def test_finetuning_numbers(run: str) -> None:
    recipe = finetuning(f"videomae-{run}-finetune")
    width, depth, drop_path, dropout, sampler, flip, clips, batch, highest, lowest, epochs, decay, views = FINETUNE[run]
    encoder = recipe.model.encoder
    assert (encoder.width, encoder.depth, encoder.drop_path, recipe.model.dropout) == (width, depth, drop_path, dropout)
    assert (recipe.data.sampler.kind, recipe.data.augment.flip, recipe.data.views) == (sampler, flip, clips)
    used = rates(recipe, VIDEOS[run.split("-")[1]])
    assert recipe.run.batch_size == batch
    assert used.max() == pytest.approx(highest)
    assert recipe.schedule.min_lr == lowest
    assert recipe.schedule.warmup_epochs == 5
    assert recipe.schedule.epochs == epochs
    assert recipe.optim.layer_decay == decay
    assert recipe.optim.betas == (0.9, 0.999)
    assert recipe.optim.weight_decay == 0.05
    assert (recipe.views.clips, recipe.views.crops) == views
    mixing = recipe.mixing
    assert (mixing.mixup, mixing.cutmix, mixing.switch, mixing.smoothing) == (0.8, 1.0, 0.5, 0.1)
    assert recipe.model.init_scale == 0.001
    assert recipe.ema is None


def test_hmdb51_is_read_at_stride_two() -> None:
    assert finetuning("videomae-b-hmdb51-4800-finetune").data.sampler.model_dump() == {"kind": "span", "stride": 2}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_yaml(name: str) -> None:
    recipe = RECIPES[name]()
    assert recipe.name == name
    assert parse_recipe(to_yaml(recipe), name) == recipe


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("videomae-")])
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
    """Shrunk to two narrow blocks and 4 frames of 32 pixels; mask, target, mixing, groups and rates stay."""
    torch.set_num_threads(1)
    recipe = shrunk(RECIPES[name]())
    method, groups = method_of(recipe)
    optimizer = Optimizer(groups, recipe.optim)
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
    size = {"width": 24, "depth": 2, "heads": 2}
    changes = [f"model.encoder.{key}={value}" for key, value in size.items()]
    changes += ["model.encoder.patch=8", "model.encoder.tubelet=2", "clip.frames=4", "clip.size=32"]
    if isinstance(recipe, PretrainRecipe):
        changes += [f"model.decoder.{key}={value}" for key, value in size.items()]
        return override(recipe, changes)
    # Without drop path and with a head that is not nearly zero, so that a gradient reaches every parameter.
    return override(recipe, [*changes, "model.encoder.drop_path=0", "model.init_scale=1", "classes=3"])


def method_of(recipe: PretrainRecipe | FinetuneRecipe) -> tuple[nn.Module, tuple[ParameterGroup, ...]]:
    if isinstance(recipe, PretrainRecipe):
        method = build_method(recipe)
        named = dict(method.named_parameters())
        return method, parameter_groups(named, weight_decay=recipe.optim.weight_decay)
    with step_rng(recipe.seed, 0):
        tuning = Finetuning(recipe.model.build(recipe.clip, 3), recipe.mixing)
    return tuning.train(), finetuning_groups(tuning, recipe)


def random_batch(recipe: PretrainRecipe | FinetuneRecipe) -> Batch:
    rng = generator(1)
    frames, size = recipe.clip.frames, recipe.clip.size
    video = torch.from_numpy(rng.integers(0, 256, (4, 3, frames, size, size), dtype=np.uint8))
    clips = {"video": Clips(video, torch.arange(4))}
    if isinstance(recipe, FinetuneRecipe):
        return Batch(clips, labels=torch.tensor([0, 1, 2, 0]))
    grid = recipe.clip.grid(recipe.model.encoder.cube)
    hidden = [recipe.mask(grid, rng) for _ in range(4)]
    decoded = [recipe.decode(grid, one, rng) for one in hidden]
    mask = Mask(torch.from_numpy(np.stack(hidden)), torch.from_numpy(np.stack(decoded)))
    return Batch(clips, {"video": mask.split()})
