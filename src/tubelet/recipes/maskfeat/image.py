"""MaskFeat on ImageNet-1K: an image is a video of one frame (arXiv:2112.09133; SlowFast `configs/masked_ssl/in1k_*`).

The released encoders have a class token, which the head does not read; ours have none (docs/deviations.md).
"""

from __future__ import annotations

from tubelet.masks import BlockTube
from tubelet.methods.classifier import ClassifierSpec
from tubelet.methods.predictor import MaskedPredictorSpec
from tubelet.nn.mixing import Mixing
from tubelet.recipe import Data, FinetuneRecipe, LabelledData, Optim, PretrainRecipe, Run, Schedule, Views
from tubelet.recipes.maskfeat.sizes import IMAGE_VIT_B, IMAGE_VIT_L
from tubelet.spec import replace
from tubelet.targets.hog import Hog
from tubelet.types import ClipShape
from tubelet.video.augment.augment import Augment, RandAugment, RandomErasing, RandomResizedCrop
from tubelet.video.sample import Strided

_IMAGE = ClipShape(frames=1, size=224)
_RATIO = (0.75, 4 / 3)


def pretrain_b1600_in1k() -> PretrainRecipe:
    """ViT-B, ImageNet-1K, 1600 epochs. Fine-tuned: 84.0 top-1 (SlowFast, model zoo).

    Released weights: 1600 epochs (taken). The released config: 300. The base of ViT-L's.
    Hardware: nodes of 8 GPUs with 256 images each; no number and no time given.
    Command: tubelet pretrain maskfeat-b-in1k-1600-pretrain --data imagenet/train --out runs/b-in1k-1600
    """
    return PretrainRecipe(
        name="maskfeat-b-in1k-1600-pretrain",
        clip=_IMAGE,
        data=Data(
            sampler=Strided(stride=1), augment=Augment(crop=RandomResizedCrop(scale=(0.5, 1.0), ratio=_RATIO), flip=0.5)
        ),
        model=MaskedPredictorSpec(encoder=IMAGE_VIT_B),
        mask=BlockTube(ratio=0.4, cell=(1, 1, 1)),
        target=Hog(),
        optim=Optim(lr=2e-4, betas=(0.9, 0.999), weight_decay=0.05, clip_grad=0.02),
        schedule=Schedule(epochs=1600, warmup_epochs=30, min_lr=1e-6, start_lr=1e-6),
        run=Run(batch_size=2048, accumulate=8),
    )


def pretrain_l1600_in1k() -> PretrainRecipe:
    """ViT-L, ImageNet-1K, 1600 epochs. Fine-tuned: 85.7 top-1 (SlowFast, model zoo).

    Hardware: nodes of 8 GPUs with 256 images each; no number and no time given.
    Command: tubelet pretrain maskfeat-l-in1k-1600-pretrain --data imagenet/train --out runs/l-in1k-1600
    """
    return replace(
        pretrain_b1600_in1k(),
        name="maskfeat-l-in1k-1600-pretrain",
        model=MaskedPredictorSpec(encoder=IMAGE_VIT_L),
        run=Run(batch_size=2048, accumulate=16),
    )


def finetune_b1600_in1k() -> FinetuneRecipe:
    """ViT-B, ImageNet-1K, after 1600 epochs: 84.0 top-1, one view (SlowFast, model zoo).

    The config has 2e-3 for the 512 images of a node: 1e-3 per 256.
    Hardware: nodes of 8 GPUs; no number and no time given.
    Command: tubelet finetune maskfeat-b-in1k-1600-finetune --start runs/b-in1k-1600 --train imagenet/train
    --val imagenet/val --out runs/b-in1k-1600-finetuned
    """
    return FinetuneRecipe(
        name="maskfeat-b-in1k-1600-finetune",
        clip=_IMAGE,
        data=LabelledData(
            sampler=Strided(stride=1),
            augment=Augment(
                crop=RandomResizedCrop(scale=(0.08, 1.0), ratio=_RATIO),
                flip=0.5,
                randaugment=RandAugment(operations=2, magnitude=9.0, deviation=0.5),
                erase=RandomErasing(probability=0.25),
            ),
        ),
        model=ClassifierSpec(encoder=replace(IMAGE_VIT_B, drop_path=0.1)),
        mixing=Mixing(mixup=0.8, cutmix=1.0, probability=1.0, switch=0.5, smoothing=0.1),
        optim=Optim(lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05, layer_decay=0.65),
        schedule=Schedule(epochs=100, warmup_epochs=20, min_lr=5e-7, start_lr=5e-9),
        run=Run(batch_size=2048, accumulate=8),
        views=Views(clips=1, crops=1),
    )


def finetune_l1600_in1k() -> FinetuneRecipe:
    """ViT-L, ImageNet-1K, after 1600 epochs: 85.7 top-1, one view (SlowFast, model zoo).

    Hardware: nodes of 8 GPUs; no number and no time given.
    Command: tubelet finetune maskfeat-l-in1k-1600-finetune --start runs/l-in1k-1600 --train imagenet/train
    --val imagenet/val --out runs/l-in1k-1600-finetuned
    """
    base = finetune_b1600_in1k()
    return replace(
        base,
        name="maskfeat-l-in1k-1600-finetune",
        model=ClassifierSpec(encoder=replace(IMAGE_VIT_L, drop_path=0.1)),
        optim=replace(base.optim, layer_decay=0.75),
        schedule=Schedule(epochs=50, warmup_epochs=5, min_lr=1e-6, start_lr=1e-8),
        run=Run(batch_size=1024, accumulate=16),
    )
