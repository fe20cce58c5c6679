"""MaskFeat for one GPU, and for a processor. Ours: no published number."""

from __future__ import annotations

from tubelet.masks import CubeMask
from tubelet.methods.classifier import ClassifierSpec
from tubelet.methods.predictor import MaskedPredictorSpec
from tubelet.nn.mixing import Mixing
from tubelet.recipe import Data, FinetuneRecipe, LabelledData, Optim, PretrainRecipe, Run, Schedule, Views
from tubelet.recipes.maskfeat.sizes import MVIT_S, MVIT_TI, fine
from tubelet.recipes.videomae import tiny
from tubelet.spec import replace
from tubelet.targets.hog import Hog
from tubelet.types import ClipShape
from tubelet.video.augment.augment import (
    Augment,
    MultiScaleCrop,
    RandAugment,
    RandomErasing,
    RandomResizedCrop,
)
from tubelet.video.sample import Strided, Uniform

_SMALL = ClipShape(frames=16, size=128)


def pretrain_small() -> PretrainRecipe:
    """MViTv2-S on 16 frames of 128 x 128: a start for your own folder of clips. No published number.

    A third of the pixels of the published runs, no flip (left and right may matter in your videos). Set data.cache
    where the decoded frames fit on the disk: each video is then decoded once.
    Hardware: one GPU.
    Command: tubelet pretrain maskfeat-s-small-pretrain --data videos --out runs/pretrained
    """
    return PretrainRecipe(
        name="maskfeat-s-small-pretrain",
        clip=_SMALL,
        data=Data(sampler=Strided(stride=2), augment=Augment(crop=MultiScaleCrop())),
        model=MaskedPredictorSpec(encoder=fine(MVIT_S)),
        mask=CubeMask(ratio=0.4),
        target=Hog(),
        optim=Optim(lr=8e-4, betas=(0.9, 0.999), weight_decay=0.05, clip_grad=0.02),
        schedule=Schedule(epochs=300, warmup_epochs=15, min_lr=8e-6),
        run=Run(batch_size=64, save_every=200),
    )


def finetune_small() -> FinetuneRecipe:
    """MViTv2-S on 16 frames of 128 x 128 from the whole clip: a classifier on your labels. No published number.

    Hardware: one GPU.
    Command: tubelet finetune maskfeat-s-small-finetune --start runs/pretrained --train train.csv --val val.csv
    --out runs/finetuned
    """
    return FinetuneRecipe(
        name="maskfeat-s-small-finetune",
        clip=_SMALL,
        data=LabelledData(
            sampler=Uniform(),
            augment=Augment(
                crop=RandomResizedCrop(scale=(0.5, 1.0), ratio=(0.75, 4 / 3)),
                randaugment=RandAugment(operations=2, magnitude=7.0, deviation=0.5),
                erase=RandomErasing(probability=0.25),
            ),
            views=2,
        ),
        model=ClassifierSpec(encoder=replace(MVIT_S, drop_path=0.1)),
        mixing=Mixing(mixup=0.8, cutmix=1.0, probability=1.0, switch=0.5, smoothing=0.1),
        optim=Optim(lr=2e-3, betas=(0.9, 0.999), weight_decay=0.05, layer_decay=0.75, clip_grad=5.0),
        schedule=Schedule(epochs=100, warmup_epochs=10, min_lr=1.6e-5),
        run=Run(batch_size=32, save_every=200),
        views=Views(clips=4, crops=1),
    )


def pretrain_tiny() -> PretrainRecipe:
    """0.8 M parameters on 16 frames of 64 x 64 from the whole clip: for a processor. No published number.

    As videomae-ti-cpu-pretrain, with a multiscale transformer of two stages; HOG of cells of 8 x 8, as in the paper.
    Hardware: 2 processor cores.
    Command: tubelet pretrain maskfeat-ti-cpu-pretrain --data videos --out runs/pretrained
    """
    return replace(
        tiny.pretrain_tiny(),
        name="maskfeat-ti-cpu-pretrain",
        model=MaskedPredictorSpec(encoder=MVIT_TI),
        mask=CubeMask(ratio=0.4, cell=(1, 1, 1)),
        target=Hog(),
        schedule=Schedule(epochs=200, warmup_epochs=10, min_lr=1e-5),
    )


def finetune_tiny() -> FinetuneRecipe:
    """The classifier that belongs to maskfeat-ti-cpu-pretrain. No published number.

    As videomae-ti-cpu-finetune.
    Hardware: 2 processor cores.
    Command: tubelet finetune maskfeat-ti-cpu-finetune --start runs/pretrained --train train.csv --val val.csv
    --out runs/finetuned
    """
    return replace(
        tiny.finetune_tiny(),
        name="maskfeat-ti-cpu-finetune",
        model=ClassifierSpec(encoder=replace(MVIT_TI, drop_path=0.1)),
    )
