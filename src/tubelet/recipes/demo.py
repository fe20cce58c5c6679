"""The demo: VideoMAE on videos made on the spot, for two processor cores and ten minutes. `tubelet demo` runs it whole.

Three runs: pre-training, fine-tuning from it, and the same fine-tuning from scratch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tubelet.data.synthetic.videos import SyntheticPlan
from tubelet.masks import Tube
from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.methods.classifier import ClassifierSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.nn.mixing import NO_MIXING
from tubelet.recipe import Data, FinetuneRecipe, LabelledData, Optim, PretrainRecipe, Run, Schedule, Views
from tubelet.spec import replace
from tubelet.types import ClipShape
from tubelet.video.augment.augment import Augment, ColourJitter, MultiScaleCrop
from tubelet.video.sample import Strided


@dataclass(frozen=True)
class Demo:
    """The parts of the demo, filled in for one folder."""

    seed: int
    videos: SyntheticPlan
    pretrain: PretrainRecipe
    finetune: FinetuneRecipe
    scratch: FinetuneRecipe


def demo(folder: Path, *, seed: int = 0) -> Demo:
    """The demo in `folder`: where videos, cached frames and the pre-trained run are, and the seed of everything."""
    data = str(folder / DATA)
    cache = str(folder / "cache")
    unlabelled = demo_pretrain()
    labelled = replace(demo_finetune().data, train=f"{data}/train.csv", class_names=f"{data}/classes.txt", cache=cache)
    return Demo(
        seed=seed,
        videos=replace(demo_videos(), seed=seed),
        pretrain=replace(
            unlabelled, seed=seed, data=replace(unlabelled.data, videos=f"{data}/unlabelled.txt", cache=cache)
        ),
        finetune=replace(demo_finetune(), seed=seed, data=labelled, start=str(folder / PRETRAINED)),
        scratch=replace(demo_scratch(), seed=seed, data=labelled),
    )


DATA: Final = "data"
PRETRAINED: Final = "pretrained"

CLIP = ClipShape(frames=8, size=48)
ENCODER = ViTSpec(width=96, depth=4, heads=3, patch=12, tubelet=2)
SAMPLER = Strided(stride=2)
CROP = MultiScaleCrop(scales=(0.8,), max_distort=0)


def demo_videos() -> SyntheticPlan:
    """What the demo trains on: 24 frames of 60 x 60, eight motions, most of them without a label."""
    return SyntheticPlan(unlabelled=3200, train=160, val=80, test=800, frames=24, size=60)


def demo_pretrain() -> PretrainRecipe:
    """A ViT of 0.6 M parameters fills in 9 of the 16 tubes of 8 frames of 48 x 48; cubes are 2 x 12 x 12."""
    return PretrainRecipe(
        name="demo-pretrain",
        clip=CLIP,
        data=Data(sampler=SAMPLER, augment=Augment(crop=CROP), views=2, workers=1),
        model=MaskedAutoencoderSpec(encoder=ENCODER, decoder=DecoderSpec(width=64, depth=2, heads=2)),
        mask=Tube(ratio=0.6),
        optim=Optim(lr=1.2e-2, betas=(0.9, 0.95), weight_decay=0.05, clip_grad=1.0),
        schedule=Schedule(epochs=30, warmup_epochs=3, min_lr=1e-5),
        run=Run(batch_size=32, log_every=20, save_every=500),
    )


def demo_finetune() -> FinetuneRecipe:
    """All weights on the labelled videos, with turned colours: 160 videos are learnt by heart otherwise."""
    return FinetuneRecipe(
        name="demo-finetune",
        clip=CLIP,
        data=LabelledData(
            sampler=SAMPLER,
            augment=Augment(crop=CROP, colour=ColourJitter(brightness=0.4, contrast=0.4, saturation=0.6, hue=0.5)),
            views=2,
            workers=1,
        ),
        model=ClassifierSpec(encoder=replace(ENCODER, drop_path=0.1)),
        mixing=NO_MIXING,
        optim=Optim(lr=1.6e-2, betas=(0.9, 0.999), weight_decay=0.05, layer_decay=0.75),
        schedule=Schedule(epochs=100, warmup_epochs=10, min_lr=1e-6),
        run=Run(batch_size=16, log_every=20, save_every=500),
        views=Views(clips=1, crops=1),
    )


def demo_scratch() -> FinetuneRecipe:
    """The same model, videos, steps, rates and augmentation, from random weights; every layer at the full rate.

    Layer decay is meant for pre-trained weights and would only hold this one back.
    """
    recipe = demo_finetune()
    return replace(recipe, name="demo-scratch", optim=replace(recipe.optim, layer_decay=None))
