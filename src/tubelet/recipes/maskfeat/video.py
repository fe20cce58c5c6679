"""MaskFeat on Kinetics-400 (arXiv:2112.09133; SlowFast `configs/masked_ssl`).

SlowFast writes rates for the clips of one node of 8 GPUs, and multiplies them by the nodes: 1e-4 for 32 clips in
pre-training, 6e-4 for 16 videos in fine-tuning. Here they are per 256. How many nodes the released runs had is not
said; MMSelfSup repeats them with batches of 512 and 256, taken here. SlowFast trains in fp32 throughout:
`run.precision=fp32`. `run.accumulate` is ours: pieces meant for one GPU with 80 GB (estimated, not measured).
"""

from __future__ import annotations

from tubelet.masks import CubeMask
from tubelet.methods.classifier import ClassifierSpec
from tubelet.methods.predictor import MaskedPredictorSpec
from tubelet.nn.mixing import Mixing
from tubelet.recipe import Data, FinetuneRecipe, LabelledData, Optim, PretrainRecipe, Run, Schedule, Views
from tubelet.recipes.maskfeat.sizes import MVIT_L, MVIT_S, fine
from tubelet.spec import replace
from tubelet.targets.hog import Hog
from tubelet.video.augment.augment import Augment, RandAugment, RandomErasing, RandomResizedCrop
from tubelet.video.sample import Span

_RATIO = (0.75, 4 / 3)


def pretrain_s300_k400() -> PretrainRecipe:
    """MViTv2-S, Kinetics-400, 300 epochs. Fine-tuned: 82.2 top-1, 10 x 1 views (SlowFast, model zoo).

    Repeated by others: 81.8 and 82.1 on two copies of the data (MMSelfSup). The base of the others.
    Hardware: nodes of 8 GPUs; no number and no time given.
    Command: tubelet pretrain maskfeat-s-k400-300-pretrain --data k400/train.csv --out runs/s-k400-300
    """
    return PretrainRecipe(
        name="maskfeat-s-k400-300-pretrain",
        data=Data(
            sampler=Span(stride=4),
            augment=Augment(crop=RandomResizedCrop(scale=(0.5, 1.0), ratio=_RATIO, interpolation="bilinear"), flip=0.5),
        ),
        model=MaskedPredictorSpec(encoder=fine(MVIT_S)),
        mask=CubeMask(ratio=0.4),
        target=Hog(),
        optim=Optim(lr=8e-4, betas=(0.9, 0.999), weight_decay=0.05, clip_grad=0.02),
        schedule=Schedule(epochs=300, warmup_epochs=10, min_lr=8e-6, start_lr=8e-6),
        run=Run(batch_size=512, accumulate=8),
    )


def pretrain_l800_k400() -> PretrainRecipe:
    """MViTv2-L, Kinetics-400, 800 epochs. Fine-tuned: 84.3 / 96.3, 10 x 1 views (SlowFast, model zoo).

    Released weights: 800 epochs (taken). The released config: 300.
    Hardware: nodes of 8 GPUs; no number and no time given.
    Command: tubelet pretrain maskfeat-l-k400-800-pretrain --data k400/train.csv --out runs/l-k400-800
    """
    base = pretrain_s300_k400()
    return replace(
        base,
        name="maskfeat-l-k400-800-pretrain",
        model=MaskedPredictorSpec(encoder=fine(MVIT_L)),
        schedule=replace(base.schedule, epochs=800),
        run=Run(batch_size=512, accumulate=64),
    )


def finetune_s300_k400() -> FinetuneRecipe:
    """MViTv2-S, Kinetics-400, after 300 epochs: 82.2 top-1, 10 x 1 views (SlowFast, model zoo).

    From scratch the paper has 81.1. Colour jitter stands in the config and is off wherever RandAugment is on.
    Hardware: nodes of 8 GPUs; no number and no time given.
    Command: tubelet finetune maskfeat-s-k400-300-finetune --start runs/s-k400-300 --train k400/train.csv
    --val k400/val.csv --out runs/s-k400-300-finetuned
    """
    return FinetuneRecipe(
        name="maskfeat-s-k400-300-finetune",
        data=LabelledData(
            sampler=Span(stride=4),
            augment=Augment(
                crop=RandomResizedCrop(scale=(0.08, 1.0), ratio=_RATIO, interpolation="bilinear"),
                flip=0.5,
                randaugment=RandAugment(operations=2, magnitude=7.0, deviation=0.5),
                erase=RandomErasing(probability=0.25),
            ),
            views=2,
        ),
        model=ClassifierSpec(encoder=replace(MVIT_S, drop_path=0.1)),
        mixing=Mixing(mixup=0.8, cutmix=1.0, probability=1.0, switch=0.5, smoothing=0.1),
        optim=Optim(lr=9.6e-3, betas=(0.9, 0.999), weight_decay=0.05, layer_decay=0.75, clip_grad=5.0),
        schedule=Schedule(epochs=100, warmup_epochs=20, min_lr=1.6e-5, start_lr=1.6e-5),
        run=Run(batch_size=256, accumulate=8),
        views=Views(clips=10, crops=1),
    )


def finetune_l800_k400() -> FinetuneRecipe:
    """MViTv2-L, Kinetics-400, after 800 epochs: 84.3 / 96.3, 10 x 1 views (SlowFast, model zoo).

    One clip of a video in a step, where S has two.
    Hardware: nodes of 8 GPUs; no number and no time given.
    Command: tubelet finetune maskfeat-l-k400-800-finetune --start runs/l-k400-800 --train k400/train.csv
    --val k400/val.csv --out runs/l-k400-800-finetuned
    """
    base = finetune_s300_k400()
    return replace(
        base,
        name="maskfeat-l-k400-800-finetune",
        data=replace(base.data, views=1),
        model=ClassifierSpec(encoder=replace(MVIT_L, drop_path=0.2)),
        optim=replace(base.optim, layer_decay=0.875),
        schedule=Schedule(epochs=75, warmup_epochs=5, min_lr=1.6e-4, start_lr=1.6e-7),
        run=Run(batch_size=256, accumulate=32),
    )
