"""VideoMAE that a laptop's processor trains in minutes: small frames, small cubes. Ours: no published number."""

from __future__ import annotations

from tubelet.masks import Tube
from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.methods.classifier import ClassifierSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.nn.mixing import Mixing
from tubelet.recipe import Data, FinetuneRecipe, LabelledData, Optim, PretrainRecipe, Run, Schedule, Views
from tubelet.spec import replace
from tubelet.types import ClipShape
from tubelet.video.augment.augment import Augment, ColourJitter, RandomResizedCrop
from tubelet.video.sample import Uniform

_CLIP = ClipShape(frames=16, size=64)
_ENCODER = ViTSpec(width=128, depth=6, heads=4, patch=8)


def pretrain_tiny() -> PretrainRecipe:
    """1.4 M parameters on 16 frames of 64 x 64 from the whole clip: for a processor. No published number.

    Small batches, because what a short run lacks is steps (docs/log.md). No flip: left and right may matter.
    Hardware: 2 processor cores; docs/results.md has figures.
    Command: tubelet pretrain videomae-ti-cpu-pretrain --data videos --out runs/pretrained
    """
    return PretrainRecipe(
        name="videomae-ti-cpu-pretrain",
        clip=_CLIP,
        data=Data(sampler=Uniform(), augment=Augment(crop=RandomResizedCrop(scale=(0.5, 1.0))), workers=1),
        model=MaskedAutoencoderSpec(encoder=_ENCODER, decoder=DecoderSpec(width=64, depth=2, heads=2)),
        mask=Tube(ratio=0.85),
        optim=Optim(lr=8e-3, betas=(0.9, 0.95), weight_decay=0.05, clip_grad=1.0),
        schedule=Schedule(epochs=400, warmup_epochs=20, min_lr=1e-5),
        run=Run(batch_size=32, save_every=500),
    )


def finetune_tiny() -> FinetuneRecipe:
    """The classifier that belongs to videomae-ti-cpu-pretrain. No published number.

    Colours and crops are varied, because a few hundred labelled clips are soon known by heart.
    Hardware: 2 processor cores; docs/results.md has figures.
    Command: tubelet finetune videomae-ti-cpu-finetune --start runs/pretrained --train train.csv --val val.csv
    --out runs/finetuned
    """
    return FinetuneRecipe(
        name="videomae-ti-cpu-finetune",
        clip=_CLIP,
        data=LabelledData(
            sampler=Uniform(),
            augment=Augment(
                crop=RandomResizedCrop(scale=(0.5, 1.0)),
                colour=ColourJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
            ),
            workers=1,
        ),
        model=ClassifierSpec(encoder=replace(_ENCODER, drop_path=0.1)),
        mixing=Mixing(mixup=0.0, cutmix=0.0, probability=0.0, switch=0.5, smoothing=0.1),
        optim=Optim(lr=8e-3, betas=(0.9, 0.999), weight_decay=0.05, layer_decay=0.8, clip_grad=1.0),
        schedule=Schedule(epochs=50, warmup_epochs=5, min_lr=1e-6),
        run=Run(batch_size=32, save_every=500),
        views=Views(clips=4, crops=1),
    )
