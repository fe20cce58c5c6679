"""VideoMAE for some hundred to some thousand clips and one GPU, or a patient processor. Ours: no published number."""

from __future__ import annotations

from tubelet.masks import Tube
from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.methods.classifier import ClassifierSpec
from tubelet.nn.mixing import Mixing
from tubelet.recipe import Data, FinetuneRecipe, LabelledData, Optim, PretrainRecipe, Run, Schedule, Views
from tubelet.recipes.videomae.sizes import DECODER_S, VIT_S
from tubelet.spec import replace
from tubelet.types import ClipShape
from tubelet.video.augment.augment import Augment, MultiScaleCrop, RandAugment, RandomErasing, RandomResizedCrop
from tubelet.video.sample import Strided, Uniform


def pretrain_small() -> PretrainRecipe:
    """ViT-S on 16 frames of 112 x 112: a start for your own folder of clips. No published number.

    As the paper's small sets (UCF101, HMDB51): three quarters hidden, lr 3e-4. A quarter of the pixels of the
    published runs, no flip (left and right may matter in your videos). Set data.cache where the decoded frames fit
    on the disk: each video is then decoded once.
    Hardware: one GPU. Two busy processor cores with bf16 did 3 to 4 clips a second, which is 14 hours for 500 clips:
    there, lower schedule.epochs or clip.size.
    Command: tubelet pretrain videomae-s-small-pretrain --data videos --out runs/pretrained
    """
    return PretrainRecipe(
        name="videomae-s-small-pretrain",
        clip=ClipShape(frames=16, size=112),
        data=Data(sampler=Strided(stride=2), augment=Augment(crop=MultiScaleCrop(), flip=0.0)),
        model=MaskedAutoencoderSpec(encoder=VIT_S, decoder=DECODER_S),
        mask=Tube(ratio=0.75),
        optim=Optim(lr=3e-4, betas=(0.9, 0.95), weight_decay=0.05),
        schedule=Schedule(epochs=400, warmup_epochs=20, min_lr=1e-5),
        run=Run(batch_size=64, save_every=200),
    )


def finetune_small() -> FinetuneRecipe:
    """ViT-S on 16 frames of 112 x 112 from the whole clip: a classifier on your labels. No published number.

    Frames from all over the clip (short clips in which order matters), no flip, milder crops than the published runs.
    Hardware: one GPU, or a processor for some hundred clips.
    Command: tubelet finetune videomae-s-small-finetune --start runs/pretrained --train train.csv --val val.csv
    --out runs/finetuned
    """
    return FinetuneRecipe(
        name="videomae-s-small-finetune",
        clip=ClipShape(frames=16, size=112),
        data=LabelledData(
            sampler=Uniform(),
            augment=Augment(
                crop=RandomResizedCrop(scale=(0.5, 1.0), ratio=(0.75, 4 / 3)),
                flip=0.0,
                randaugment=RandAugment(),
                erase=RandomErasing(probability=0.25),
            ),
            views=2,
        ),
        model=ClassifierSpec(encoder=replace(VIT_S, drop_path=0.1)),
        mixing=Mixing(mixup=0.8, cutmix=1.0, probability=1.0, switch=0.5, smoothing=0.1),
        optim=Optim(lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05, layer_decay=0.75),
        schedule=Schedule(epochs=100, warmup_epochs=5, min_lr=1e-6),
        run=Run(batch_size=32, save_every=200),
        views=Views(clips=2, crops=3),
    )
