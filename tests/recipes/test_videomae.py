"""Every published run of VideoMAE against numbers written by hand."""

from __future__ import annotations

import pytest

from recipes.named import HMDB51, K400, SSV2, UCF101, finetuning, pretraining, rates
from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.recipes import RECIPES
from tubelet.rng import generator

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
VIDEOS = {"k400": K400, "ssv2": SSV2, "ucf101": UCF101, "hmdb51": HMDB51}


def test_the_tables_name_every_published_run() -> None:
    ours = {name for name in RECIPES if name.startswith("videomae-") and not name.startswith("videomae-v2-")}
    published = {name for name in ours if set(name.split("-")) & set(VIDEOS)}
    tables = {f"videomae-{run}-pretrain" for run in PRETRAIN} | {f"videomae-{run}-finetune" for run in FINETUNE}
    assert published == tables


@pytest.mark.parametrize("run", PRETRAIN)
def test_pretraining_numbers(run: str) -> None:
    recipe = pretraining(f"videomae-{run}-pretrain")
    width, depth, decoder_width, decoder_depth, hidden, stride, batch, highest, epochs, steps = PRETRAIN[run]
    assert isinstance(recipe.model, MaskedAutoencoderSpec)
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
    assert isinstance(encoder, ViTSpec)
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
