"""VideoMAE V2: ViT-g fine-tuned (arXiv:2303.16727, tables of post-pre-training and specific fine-tuning; scripts).

Numbers are those of the authors' model zoo, top-1 / top-5; no time is given for any of these runs.
"""

from __future__ import annotations

from tubelet.recipe import FinetuneRecipe, Run, SameClasses
from tubelet.recipes.videomae_v2.common import adamw, classifier, cosine, kinetics, something
from tubelet.recipes.videomae_v2.sizes import VIT_G
from tubelet.spec import replace
from tubelet.video.sample import Span


def finetune_g_k710() -> FinetuneRecipe:
    """ViT-g, Kinetics-710, post-pre-training: 83.8 / 96.4, 5 x 3 views (authors' model zoo).

    710 classes of Kinetics-400, -600 and -700 merged by name: the labelled hybrid of 658 k videos. Paper: batch 128.
    Script (taken): 32 GPUs x 3 = 96 videos; both: lr 1e-3, 35 epochs, weight decay .1, drop path .3, no dropout,
    layer decay .9, gradient norm at most 5.
    Hardware: 32 A100 of 80 GB (scripts/finetune/README.md); no time given.
    Command: tubelet finetune videomae-v2-g-k710-finetune --start runs/v2-g-hybrid --train k710/train.csv
    --val k710/val.csv --class-names k710/classes.txt --out runs/v2-g-k710
    """
    return kinetics(
        "videomae-v2-g-k710-finetune",
        classifier(VIT_G, drop_path=0.3),
        adamw(1e-3, layer_decay=0.9, weight_decay=0.1, clip_grad=5.0),
        cosine(35),
        Run(batch_size=96, accumulate=32),
    )


def finetune_g_k400() -> FinetuneRecipe:
    """ViT-g, Kinetics-400, straight from pre-training: 87.2 / 97.4 (single view 83.9), 5 x 3 views.

    Authors' model zoo; single view: arXiv:2303.16727, results on Kinetics-400.
    Script: lr 1e-3, 64 GPUs x 3 = 192 videos, 30 epochs, weight decay .1, drop path .2, layer decay .9.
    Hardware: 64 GPUs; no time given.
    Command: tubelet finetune videomae-v2-g-k400-finetune --start runs/v2-g-hybrid --train k400/train.csv
    --val k400/val.csv --out runs/v2-g-k400
    """
    return replace(
        finetune_g_k710(),
        name="videomae-v2-g-k400-finetune",
        model=classifier(VIT_G, drop_path=0.2),
        optim=adamw(1e-3, layer_decay=0.9, weight_decay=0.1),
        schedule=cosine(30),
        run=Run(batch_size=192, accumulate=64),
    )


def finetune_g_k710_k400() -> FinetuneRecipe:
    """ViT-g, Kinetics-400, after Kinetics-710: 88.4 / 98.0, 5 x 3 views (authors' model zoo; paper: 88.5 / 98.1).

    The head starts from the rows of Kinetics-710 with the same class names (`start_head`), as theirs does by index.
    Paper: batch 32, no warm-up, weight decay .05, drop path .3, dropout .5. Script (taken): 32 GPUs x 3 = 96, one
    epoch of warm-up, weight decay .1, drop path .25, no dropout. Both: lr 1e-5, 3 epochs, layer decay .9.
    Hardware: 32 GPUs; no time given.
    Command: tubelet finetune videomae-v2-g-k710-k400-finetune --start runs/v2-g-k710 --train k400/train.csv
    --val k400/val.csv --class-names k400/classes.txt --out runs/v2-g-k710-k400
    """
    return replace(
        finetune_g_k710(),
        name="videomae-v2-g-k710-k400-finetune",
        model=classifier(VIT_G, drop_path=0.25),
        optim=adamw(1e-5, layer_decay=0.9, weight_decay=0.1),
        schedule=cosine(3, warmup=1),
        start_head=SameClasses(),
    )


def finetune_g_k710_k600() -> FinetuneRecipe:
    """ViT-g, Kinetics-600, after Kinetics-710: 88.8 / 98.2, 5 x 3 views (authors' model zoo and paper).

    As `videomae-v2-g-k710-k400-finetune`.
    Hardware: 32 GPUs; no time given.
    Command: tubelet finetune videomae-v2-g-k710-k600-finetune --start runs/v2-g-k710 --train k600/train.csv
    --val k600/val.csv --class-names k600/classes.txt --out runs/v2-g-k710-k600
    """
    return replace(finetune_g_k710_k400(), name="videomae-v2-g-k710-k600-finetune")


def finetune_g_ssv2() -> FinetuneRecipe:
    """ViT-g, Something-Something V2, straight from pre-training: 77.0 / 95.9 (single view 75.7), 2 x 3 views.

    Authors' model zoo; single view: arXiv:2303.16727, results on Something-Something V2. Kinetics-710 in between made
    it worse (same paper, progressive training).
    Paper: 10 epochs, drop path .35, dropout .5. Script (taken): 20 epochs, drop path .25, no dropout. Both: lr 3e-4,
    96 videos (32 GPUs x 3), weight decay .05, layer decay .9.
    Hardware: 32 GPUs; no time given.
    Command: tubelet finetune videomae-v2-g-ssv2-finetune --start runs/v2-g-hybrid --train ssv2/train.csv
    --val ssv2/val.csv --out runs/v2-g-ssv2
    """
    return replace(
        something(finetune_g_k710()),
        name="videomae-v2-g-ssv2-finetune",
        model=classifier(VIT_G, drop_path=0.25),
        optim=adamw(3e-4, layer_decay=0.9),
        schedule=cosine(20),
    )


def finetune_g_k710_ucf101() -> FinetuneRecipe:
    """ViT-g, UCF101, after Kinetics-710: 99.6 / 100.0, 5 x 3 views (authors' model zoo).

    Paper and script: lr 1e-3, 24 videos (8 GPUs x 3), 50 epochs, drop path .35, dropout .5, weight decay .05, layer
    decay .9. Which of the three splits the number belongs to is not in our sources.
    Hardware: 8 GPUs; no time given.
    Command: tubelet finetune videomae-v2-g-k710-ucf101-finetune --start runs/v2-g-k710 --train ucf101/train.csv
    --val ucf101/val.csv --out runs/v2-g-k710-ucf101
    """
    return replace(
        finetune_g_k710(),
        name="videomae-v2-g-k710-ucf101-finetune",
        model=classifier(VIT_G, drop_path=0.35, dropout=0.5),
        optim=adamw(1e-3, layer_decay=0.9),
        schedule=cosine(50),
        run=Run(batch_size=24, accumulate=8),
    )


def finetune_g_k710_hmdb51() -> FinetuneRecipe:
    """ViT-g, HMDB51, after Kinetics-710: 88.1 / 98.5, 5 x 3 views (authors' model zoo).

    As UCF101, but lr 5e-4, 15 epochs and stride 2. Which of the three splits the number belongs to is not in our
    sources.
    Hardware: 8 GPUs; no time given.
    Command: tubelet finetune videomae-v2-g-k710-hmdb51-finetune --start runs/v2-g-k710 --train hmdb51/train.csv
    --val hmdb51/val.csv --out runs/v2-g-k710-hmdb51
    """
    base = finetune_g_k710_ucf101()
    return replace(
        base,
        name="videomae-v2-g-k710-hmdb51-finetune",
        data=replace(base.data, sampler=Span(stride=2)),
        optim=adamw(5e-4, layer_decay=0.9),
        schedule=cosine(15),
    )
