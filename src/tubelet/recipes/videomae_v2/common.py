"""What the fine-tuning runs of VideoMAE V2 share: the scripts' defaults (`run_class_finetuning.py`).

AdamW, betas .9 / .999, lowest rate 1e-6, two clips of each video in a step, mixup .8, cutmix 1, label smoothing .1,
random erasing .25, RandAugment with 4 operations of magnitude 7. The paper's tables have "RandAug (0, 0.5)" and
"MultiScaleCrop" in every column; the code that made the weights has magnitude 7 and a random resized crop.
`run.accumulate` cuts a step as the authors' GPUs did, so that mixup and cutmix are drawn for as many clips as theirs.
On as many GPUs as they had: run.accumulate=1.
"""

from __future__ import annotations

from tubelet.methods.classifier import ClassifierSpec
from tubelet.models.vit import ViTSpec
from tubelet.nn.mixing import Mixing
from tubelet.recipe import FinetuneRecipe, LabelledData, Optim, Run, Schedule, Views
from tubelet.spec import replace
from tubelet.video.augment.augment import Augment, RandAugment, RandomErasing, RandomResizedCrop
from tubelet.video.sample import Segments, Span


def kinetics(name: str, model: ClassifierSpec, optim: Optim, schedule: Schedule, run: Run) -> FinetuneRecipe:
    """Dense clips over 64 frames, flipped at random, 5 x 3 test views."""
    return FinetuneRecipe(
        name=name,
        data=LabelledData(sampler=Span(stride=4), augment=_augment(flip=0.5), views=2),
        model=model,
        mixing=Mixing(mixup=0.8, cutmix=1.0, probability=1.0, switch=0.5, smoothing=0.1),
        optim=optim,
        schedule=schedule,
        run=run,
        views=Views(clips=5, crops=3),
    )


def something(recipe: FinetuneRecipe) -> FinetuneRecipe:
    """Something-Something V2: one frame from each segment, no flip (left and right are classes), 2 x 3 views."""
    data = replace(recipe.data, sampler=Segments(), augment=_augment(flip=0.0))
    return replace(recipe, data=data, views=Views(clips=2, crops=3))


def classifier(encoder: ViTSpec, *, drop_path: float, dropout: float = 0.0) -> ClassifierSpec:
    """`dropout` is the scripts' `head_drop_rate`."""
    return ClassifierSpec(encoder=replace(encoder, drop_path=drop_path), dropout=dropout, init_scale=0.001)


def adamw(lr: float, *, layer_decay: float, weight_decay: float = 0.05, clip_grad: float | None = None) -> Optim:
    """`lr` is for 256 videos: the clips that are taken of each do not count."""
    return Optim(lr=lr, betas=(0.9, 0.999), weight_decay=weight_decay, layer_decay=layer_decay, clip_grad=clip_grad)


def cosine(epochs: int, *, warmup: int = 5) -> Schedule:
    return Schedule(epochs=epochs, warmup_epochs=warmup, min_lr=1e-6)


def _augment(flip: float) -> Augment:
    return Augment(
        crop=RandomResizedCrop(scale=(0.08, 1.0), ratio=(0.75, 4 / 3)),
        flip=flip,
        randaugment=RandAugment(operations=4, magnitude=7.0, deviation=0.5),
        erase=RandomErasing(probability=0.25),
    )
