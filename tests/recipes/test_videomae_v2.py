"""Every published run of VideoMAE V2 against numbers written by hand (arXiv:2303.16727 and the authors' scripts)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from recipes.named import HMDB51, HYBRID, K400, K600, K710, SSV2, UCF101, finetuning, pretraining, rates
from tubelet.masks import RunningCell, scored
from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.methods.distillation import Distill
from tubelet.models.vit import ViTSpec
from tubelet.plan.plan import count_parameters
from tubelet.recipe import FinetuneRecipe, PretrainRecipe, SameClasses, parse_any_recipe, resolved, to_yaml
from tubelet.recipes import RECIPES
from tubelet.recipes.progressive import PROGRESSIVE
from tubelet.rng import generator
from tubelet.types import ClipShape

OWN = {"videomae-v2-s-small-pretrain", "videomae-v2-s-small-finetune", "videomae-v2-ti-cpu-pretrain"}

# name: encoder width, blocks, heads, decoder width, heads, videos in the set, videos a step, highest lr used,
#       loader epochs, of them warm-up, bound on gradients, parameters in millions (counted by the authors' code)
PRETRAIN = {
    "b-hybrid-800": (768, 12, 12, 384, 6, HYBRID, 1024, 4e-3, 200, 20, None, 94.21),
    "l-hybrid-1200": (1024, 24, 16, 512, 8, HYBRID, 1536, 6e-3, 300, 30, None, 317.78),
    "h-hybrid-1200": (1280, 32, 16, 512, 8, HYBRID, 2048, 8e-3, 300, 30, None, 645.66),
    "g-hybrid-1200": (1408, 40, 16, 512, 8, HYBRID, 2048, 4.8e-3, 300, 30, 0.02, 1026.31),
    "b-ssv2-800": (768, 12, 12, 384, 6, SSV2, 1024, 4e-3, 200, 20, None, 94.21),
}


@dataclass(frozen=True)
class Tuned:
    """What paper or script say; rates as used, not per 256 videos."""

    videos: int
    width: int
    batch: int
    gpus: int
    highest: float
    epochs: int
    drop_path: float
    decay: float
    warmup: int = 5
    dropout: float = 0.0
    weight_decay: float = 0.05
    clip_grad: float | None = None
    stride: int | None = 4
    views: int = 2
    mapped: bool = False
    clip: tuple[int, int] = (16, 224)
    test: tuple[int, int] = (5, 3)


S, B, L, H, G = 384, 768, 1024, 1280, 1408
FINETUNE = {
    "g-k710": Tuned(K710, G, 96, 32, 3.75e-4, 35, 0.3, 0.9, weight_decay=0.1, clip_grad=5.0),
    "g-k400": Tuned(K400, G, 192, 64, 7.5e-4, 30, 0.2, 0.9, weight_decay=0.1),
    "g-k710-k400": Tuned(K400, G, 96, 32, 3.75e-6, 3, 0.25, 0.9, warmup=1, weight_decay=0.1, mapped=True),
    "g-k710-k600": Tuned(K600, G, 96, 32, 3.75e-6, 3, 0.25, 0.9, warmup=1, weight_decay=0.1, mapped=True),
    "g-ssv2": Tuned(SSV2, G, 96, 32, 1.125e-4, 20, 0.25, 0.9, stride=None, test=(2, 3)),
    "g-k710-ucf101": Tuned(UCF101, G, 24, 8, 9.375e-5, 50, 0.35, 0.9, dropout=0.5),
    "g-k710-hmdb51": Tuned(HMDB51, G, 24, 8, 4.6875e-5, 15, 0.35, 0.9, dropout=0.5, stride=2),
    "h-k710": Tuned(K710, H, 128, 32, 5e-4, 40, 0.2, 0.8, dropout=0.5),
    "h-k400": Tuned(K400, H, 128, 32, 5e-4, 40, 0.2, 0.8, dropout=0.5),
    "h-k600": Tuned(K600, H, 128, 32, 5e-4, 40, 0.2, 0.8, dropout=0.5),
    "h-ssv2": Tuned(SSV2, H, 128, 32, 2.5e-4, 20, 0.2, 0.8, stride=None, test=(2, 3)),
    "l-k400": Tuned(K400, L, 192, 32, 1.5e-3, 35, 0.2, 0.75),
    "l-ssv2": Tuned(SSV2, L, 192, 32, 3.75e-4, 20, 0.2, 0.75, stride=None, test=(2, 3)),
    "b-k400": Tuned(K400, B, 512, 32, 1.4e-3, 90, 0.1, 0.75),
    "b-k710": Tuned(K710, B, 512, 32, 1.4e-3, 90, 0.1, 0.75),
    "b-ssv2": Tuned(SSV2, B, 256, 16, 2e-3, 25, 0.1, 0.65, stride=None, test=(2, 3)),
    "g-k710-k400-64x266": Tuned(
        K400, G, 32, 32, 1.25e-5, 5, 0.35, 0.9, warmup=0, dropout=0.5, mapped=True, clip=(64, 266), test=(2, 3)
    ),
    "g-k710-k600-64x266": Tuned(
        K600, G, 32, 32, 1.25e-5, 5, 0.35, 0.9, warmup=0, dropout=0.5, mapped=True, clip=(64, 266), test=(2, 3)
    ),
    "h-k710-k400-64x288": Tuned(
        K400, H, 32, 32, 1.25e-5, 5, 0.2, 0.8, warmup=0, dropout=0.5, mapped=True, clip=(64, 288), test=(4, 3)
    ),
    "h-k710-k600-32x384": Tuned(
        K600, H, 32, 32, 1.25e-5, 5, 0.2, 0.8, warmup=0, dropout=0.5, mapped=True, clip=(32, 384), test=(4, 3)
    ),
    "s-k710-distilled": Tuned(K710, S, 1024, 32, 4e-3, 100, 0.1, 0.75, clip_grad=1.0, views=1, mapped=True),
    "b-k710-distilled": Tuned(K710, B, 1024, 32, 4e-3, 100, 0.1, 0.75, clip_grad=1.0, views=1, mapped=True),
    "b-ssv2-distilled": Tuned(SSV2, B, 512, 16, 1e-3, 100, 0.1, 0.75, clip_grad=1.0, views=1, stride=None, test=(2, 3)),
}


def test_the_tables_name_every_run() -> None:
    v2 = {name for name in RECIPES if name.startswith("videomae-v2-")}
    tables = {f"videomae-v2-{run}-pretrain" for run in PRETRAIN} | {f"videomae-v2-{run}-finetune" for run in FINETUNE}
    assert v2 - OWN == tables


@pytest.mark.parametrize("run", PRETRAIN)
def test_pretraining_numbers(run: str) -> None:
    recipe = pretraining(f"videomae-v2-{run}-pretrain")
    width, depth, heads, narrow, narrow_heads, videos, batch, highest, epochs, warmup, bound, millions = PRETRAIN[run]
    assert isinstance(recipe.model, MaskedAutoencoderSpec)
    encoder, decoder = recipe.model.encoder, recipe.model.decoder
    assert (encoder.width, encoder.depth, encoder.heads) == (width, depth, heads)
    assert (decoder.width, decoder.depth, decoder.heads) == (narrow, 4, narrow_heads)
    assert count_parameters(recipe)["total"] / 1e6 == pytest.approx(millions, abs=0.006)
    used = rates(recipe, videos)
    assert recipe.run.batch_size == batch
    assert batch / recipe.run.accumulate == 32  # videos of one of the authors' GPUs
    assert used.max() == pytest.approx(highest)
    assert used[-1] == pytest.approx(1e-5 * batch / 256, rel=1e-2)
    assert len(used) == epochs * (videos // batch)
    assert int(used.argmax()) == warmup * (videos // batch) - 1
    assert recipe.schedule.epochs * recipe.data.views == int(run.split("-")[-1])
    assert (recipe.data.views, recipe.data.augment.flip, recipe.optim.clip_grad) == (4, 0.0, bound)
    assert recipe.data.sampler.model_dump() == {"kind": "strided", "stride": 2 if videos == SSV2 else 4}
    assert (recipe.optim.betas, recipe.optim.weight_decay) == ((0.9, 0.95), 0.05)
    assert (recipe.target.kind, recipe.loss_on) == ("normalised_pixels", "hidden")


def test_the_rate_of_the_giant_is_the_papers() -> None:
    recipe = pretraining("videomae-v2-g-hybrid-1200-pretrain")
    clips = recipe.run.batch_size * recipe.data.views
    assert clips == 8192
    assert recipe.optim.lr * recipe.run.batch_size == pytest.approx(1.5e-4 * clips)


@pytest.mark.parametrize(("size", "counts"), [("b", (1568, 160, 784, 704)), ("g", (2048, 208, 1024, 920))])
def test_tokens_seen_decoded_and_scored(size: str, counts: tuple[int, int, int, int]) -> None:
    recipe = pretraining(f"videomae-v2-{size}-hybrid-{800 if size == 'b' else 1200}-pretrain")
    grid = recipe.clip.grid(recipe.model.encoder.cube)
    for seed in range(5):
        rng = generator(seed)
        hidden = recipe.mask(grid, rng)
        decoded = recipe.decode(grid, hidden, rng)
        in_loss = scored(hidden, decoded, recipe.loss_on)
        assert (hidden.size, int((~hidden).sum()), int(decoded.sum()), int(in_loss.sum())) == counts


@pytest.mark.parametrize("run", FINETUNE)
def test_finetuning_numbers(run: str) -> None:
    recipe, wanted = finetuning(f"videomae-v2-{run}-finetune"), FINETUNE[run]
    encoder, optim = recipe.model.encoder, recipe.optim
    assert isinstance(encoder, ViTSpec)
    assert (encoder.width, encoder.drop_path, recipe.model.dropout) == (wanted.width, wanted.drop_path, wanted.dropout)
    assert (encoder.patch, encoder.heads, int(encoder.mlp_ratio * encoder.width)) == (
        (14, 16, 6144) if wanted.width == G else (16, {S: 6, B: 12, L: 16, H: 16}[wanted.width], 4 * wanted.width)
    )
    used = rates(recipe, wanted.videos)
    assert used.max() == pytest.approx(wanted.highest)
    assert (recipe.run.batch_size, recipe.run.accumulate) == (wanted.batch, wanted.gpus)
    assert (recipe.schedule.epochs, recipe.schedule.warmup_epochs) == (wanted.epochs, wanted.warmup)
    assert recipe.schedule.min_lr == 1e-6
    assert (optim.layer_decay, optim.weight_decay, optim.clip_grad) == (
        wanted.decay, wanted.weight_decay, wanted.clip_grad
    )  # fmt: skip
    assert optim.betas == (0.9, 0.999)
    assert recipe.clip == ClipShape(frames=wanted.clip[0], size=wanted.clip[1])
    assert (recipe.views.clips, recipe.views.crops) == wanted.test
    assert isinstance(recipe.start_head, SameClasses) == wanted.mapped


@pytest.mark.parametrize("run", FINETUNE)
def test_finetuning_data(run: str) -> None:
    recipe, wanted = finetuning(f"videomae-v2-{run}-finetune"), FINETUNE[run]
    segments = wanted.stride is None
    kind = {"kind": "segments"} if segments else {"kind": "span", "stride": wanted.stride}
    assert recipe.data.sampler.model_dump() == kind
    assert recipe.data.augment.flip == (0.0 if segments else 0.5)
    assert recipe.data.views == wanted.views
    mixing = recipe.mixing
    assert (mixing.mixup, mixing.cutmix, mixing.switch, mixing.smoothing) == (0.8, 1.0, 0.5, 0.1)
    assert recipe.distill == (Distill(temperature=3.0) if "distilled" in run else None)


def test_longer_clips_stretch_the_positions_that_were_trained() -> None:
    longer = [run for run, tuned in FINETUNE.items() if tuned.clip != (16, 224)]
    assert len(longer) == 4
    for run in longer:
        recipe = finetuning(f"videomae-v2-{run}-finetune")
        assert isinstance(recipe.model.encoder, ViTSpec)
        assert recipe.model.encoder.positions == ClipShape(frames=16, size=224)
        assert recipe.clip.grid(recipe.model.encoder.cube)  # the cube divides the clip


@pytest.mark.parametrize("run", ["s-small", "ti-cpu"])
def test_our_own_runs_are_those_of_videomae_with_half_decoded(run: str) -> None:
    recipe, before = pretraining(f"videomae-v2-{run}-pretrain"), pretraining(f"videomae-{run}-pretrain")
    assert recipe.decode == RunningCell(ratio=0.5)
    assert recipe.model == before.model
    grid = recipe.clip.grid(recipe.model.encoder.cube)
    rng = generator(0)
    assert recipe.decode(grid, recipe.mask(grid, rng), rng).mean() == 0.5


@pytest.mark.parametrize("size", ["b", "g"])
def test_the_stages_fit_each_other(size: str) -> None:
    recipe = PROGRESSIVE[f"videomae-v2-{size}-progressive"]()
    assert parse_any_recipe(to_yaml(recipe), recipe.name) == recipe
    stages = resolved(recipe, lambda name: RECIPES[name]()).stages
    assert [(stage.name, stage.filled.kind) for stage in stages] == [
        ("pretrain", "pretrain"), ("post", "finetune"), ("target", "finetune")
    ]  # fmt: skip
    assert [recipe.start_of(place) for place in range(3)] == [None, 0, 1]
    last = stages[2].filled
    assert isinstance(last, FinetuneRecipe)
    assert (last.optim.lr, last.schedule.epochs, last.schedule.warmup_epochs) == (1e-5, 3, 1)
    assert last.start_head == SameClasses()


def test_the_hybrid_of_the_page_fits_the_giants_recipe() -> None:
    page = (Path(__file__).parents[2] / "docs/recipes.md").read_text()
    (shown,) = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    recipe = pretraining("videomae-v2-g-hybrid-1200-pretrain")
    fields = yaml.safe_load(to_yaml(recipe))
    fields["data"] |= yaml.safe_load(shown)["data"]
    filled = parse_any_recipe(yaml.safe_dump(fields), "page")
    assert isinstance(filled, PretrainRecipe)
    strides = {one.name: getattr(one.sampler or filled.data.sampler, "stride", None) for one in filled.data.sources}
    assert strides == {"k710": 4, "ssv2": 2, "ava": 4, "webvid": 4, "own": 4}


def test_the_page_names_every_run() -> None:
    page = (Path(__file__).parents[2] / "docs/recipes.md").read_text()
    runs = [f"| `videomae-v2-{run}-pretrain`" for run in PRETRAIN] + [f"| `{run}`" for run in FINETUNE]
    assert [run for run in runs if run not in page] == []
