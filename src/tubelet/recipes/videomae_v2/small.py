"""VideoMAE V2 for one GPU and for a processor: the small recipes of VideoMAE with dual masking. No published number."""

from __future__ import annotations

from tubelet.masks import RunningCell
from tubelet.recipe import FinetuneRecipe, PretrainRecipe
from tubelet.recipes import videomae
from tubelet.spec import replace
from tubelet.types import ClipShape

_CLIP = ClipShape(frames=16, size=128)
"""8 x 8 cubes of 16 x 16 pixels: cells of 2 x 2 need an even number."""


def pretrain_v2_small() -> PretrainRecipe:
    """ViT-S on 16 frames of 128 x 128, half of the cubes decoded: a start for your own folder of clips.

    `videomae-s-small-pretrain` at 128 pixels instead of 112. Set data.cache where the decoded frames fit on the disk.
    Hardware: one GPU.
    Command: tubelet pretrain videomae-v2-s-small-pretrain --data videos --out runs/pretrained
    """
    return replace(
        videomae.pretrain_small(), name="videomae-v2-s-small-pretrain", clip=_CLIP, decode=RunningCell(ratio=0.5)
    )


def finetune_v2_small() -> FinetuneRecipe:
    """ViT-S on 16 frames of 128 x 128 from the whole clip: the classifier that belongs to it. No published number.

    Hardware: one GPU, or a processor for some hundred clips.
    Command: tubelet finetune videomae-v2-s-small-finetune --start runs/pretrained --train train.csv --val val.csv
    --out runs/finetuned
    """
    return replace(videomae.finetune_small(), name="videomae-v2-s-small-finetune", clip=_CLIP)


def pretrain_v2_tiny() -> PretrainRecipe:
    """1.4 M parameters on 16 frames of 64 x 64, half of the cubes decoded: for a processor. No published number.

    `videomae-ti-cpu-pretrain` with dual masking; `videomae-ti-cpu-finetune` starts from it.
    Hardware: 2 processor cores.
    Command: tubelet pretrain videomae-v2-ti-cpu-pretrain --data videos --out runs/pretrained
    """
    return replace(videomae.pretrain_tiny(), name="videomae-v2-ti-cpu-pretrain", decode=RunningCell(ratio=0.5))
