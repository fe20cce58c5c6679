"""VideoMAE V2 on longer and larger clips, after Kinetics-710: positions of 16 x 224 x 224 are interpolated.

For ViT-g the paper has a column of settings (arXiv:2303.16727, table of specific fine-tuning, Kinetics 64 x 266); for
ViT-H it has only the accuracies. No script was released. The stride is not in our sources: 4, as all runs on Kinetics
(256 of about 300 frames). Augmentation is that of the scripts for smaller clips.
`run.accumulate` and recomputed activations are ours: one video in a piece.
"""

from __future__ import annotations

from tubelet.recipe import FinetuneRecipe, Run, Views
from tubelet.recipes.videomae_v2.common import adamw, classifier, cosine
from tubelet.recipes.videomae_v2.giant import finetune_g_k710_k400
from tubelet.recipes.videomae_v2.sizes import VIT_G, VIT_H
from tubelet.spec import replace
from tubelet.types import ClipShape

_TRAINED = ClipShape(frames=16, size=224)


def finetune_g_k400_64x266() -> FinetuneRecipe:
    """ViT-g, Kinetics-400, 64 frames of 266 x 266: 90.0 / 98.4, 2 x 3 views, 160.3 TFLOPs for all of them.

    arXiv:2303.16727, comparison on Kinetics-400. Paper: lr 1e-4, batch 32, 5 epochs without warm-up, weight decay .05,
    drop path .35, dropout .5, layer decay .9, two clips of each video.
    Hardware: not in our sources.
    Command: tubelet finetune videomae-v2-g-k710-k400-64x266-finetune --start runs/v2-g-k710 --train k400/train.csv
    --val k400/val.csv --class-names k400/classes.txt --out runs/v2-g-k710-k400-64x266
    """
    encoder = replace(VIT_G, positions=_TRAINED, checkpointing=True)
    return replace(
        finetune_g_k710_k400(),
        name="videomae-v2-g-k710-k400-64x266-finetune",
        clip=ClipShape(frames=64, size=266),
        model=classifier(encoder, drop_path=0.35, dropout=0.5),
        optim=adamw(1e-4, layer_decay=0.9),
        schedule=cosine(5, warmup=0),
        run=Run(batch_size=32, accumulate=32),
        views=Views(clips=2, crops=3),
    )


def finetune_g_k600_64x266() -> FinetuneRecipe:
    """ViT-g, Kinetics-600, 64 frames of 266 x 266: 89.9 / 98.5, 2 x 3 views (arXiv:2303.16727, Kinetics-600).

    As on Kinetics-400.
    Hardware: not in our sources.
    Command: tubelet finetune videomae-v2-g-k710-k600-64x266-finetune --start runs/v2-g-k710 --train k600/train.csv
    --val k600/val.csv --class-names k600/classes.txt --out runs/v2-g-k710-k600-64x266
    """
    return replace(finetune_g_k400_64x266(), name="videomae-v2-g-k710-k600-64x266-finetune")


def finetune_h_k400_64x288() -> FinetuneRecipe:
    """ViT-H, Kinetics-400, 64 frames of 288 x 288: 89.8 / 98.3, 4 x 3 views (arXiv:2303.16727, appendix).

    Settings are not in our sources: those of ViT-g at 64 x 266, with the layer decay and drop path of ViT-H.
    Hardware: not in our sources.
    Command: tubelet finetune videomae-v2-h-k710-k400-64x288-finetune --start runs/v2-h-k710 --train k400/train.csv
    --val k400/val.csv --class-names k400/classes.txt --out runs/v2-h-k710-k400-64x288
    """
    encoder = replace(VIT_H, positions=_TRAINED, checkpointing=True)
    return replace(
        finetune_g_k400_64x266(),
        name="videomae-v2-h-k710-k400-64x288-finetune",
        clip=ClipShape(frames=64, size=288),
        model=classifier(encoder, drop_path=0.2, dropout=0.5),
        optim=adamw(1e-4, layer_decay=0.8),
        views=Views(clips=4, crops=3),
    )


def finetune_h_k600_32x384() -> FinetuneRecipe:
    """ViT-H, Kinetics-600, 32 frames of 384 x 384: 89.6 / 98.4, 4 x 3 views (arXiv:2303.16727, appendix).

    Settings are not in our sources: those of ViT-H at 64 x 288.
    Hardware: not in our sources.
    Command: tubelet finetune videomae-v2-h-k710-k600-32x384-finetune --start runs/v2-h-k710 --train k600/train.csv
    --val k600/val.csv --class-names k600/classes.txt --out runs/v2-h-k710-k600-32x384
    """
    return replace(
        finetune_h_k400_64x288(),
        name="videomae-v2-h-k710-k600-32x384-finetune",
        clip=ClipShape(frames=32, size=384),
    )
