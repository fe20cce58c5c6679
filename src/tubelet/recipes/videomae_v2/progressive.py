"""VideoMAE V2 from the first step to the target set (arXiv:2303.16727, section 3.4): recipes for `tubelet run`.

The data is not in them: name it on the command line, `STAGE.field=value`, or in a YAML file of the same stages.
"""

from __future__ import annotations

from tubelet.recipe import ProgressiveRecipe, Stage


def progressive_g() -> ProgressiveRecipe:
    """ViT-g: unlabelled hybrid, Kinetics-710, Kinetics-400: 88.4 / 98.0 (authors' model zoo); without K710 87.2 / 97.4.

    Three published runs, one after the other.
    Hardware and time: 64 A100 of 80 GB, 241 hours for the first stage; 32 GPUs for the others, no time given.
    Command: tubelet run videomae-v2-g-progressive --out runs/v2-g pretrain.data.videos=hybrid.txt
    post.data.train=k710/train.csv post.data.class_names=k710/classes.txt
    target.data.train=k400/train.csv target.data.class_names=k400/classes.txt
    """
    return ProgressiveRecipe(
        name="videomae-v2-g-progressive",
        stages=(
            Stage(name="pretrain", recipe="videomae-v2-g-hybrid-1200-pretrain"),
            Stage(name="post", recipe="videomae-v2-g-k710-finetune"),
            Stage(name="target", recipe="videomae-v2-g-k710-k400-finetune"),
        ),
    )


def progressive_b() -> ProgressiveRecipe:
    """ViT-B: unlabelled hybrid, Kinetics-710, Kinetics-400. No published number: the paper has H and g.

    The first two stages are published runs; the third is ours: ViT-g's short one (lr 1e-5, 3 epochs), ViT-B's rest.
    Hardware: 32 GPUs (scripts of the first two); no time given.
    Command: tubelet run videomae-v2-b-progressive --out runs/v2-b pretrain.data.videos=hybrid.txt
    post.data.train=k710/train.csv post.data.class_names=k710/classes.txt
    target.data.train=k400/train.csv target.data.class_names=k400/classes.txt
    """
    short = ("optim.lr=1e-5", "schedule.epochs=3", "schedule.warmup_epochs=1", "start_head=same_classes")
    return ProgressiveRecipe(
        name="videomae-v2-b-progressive",
        stages=(
            Stage(name="pretrain", recipe="videomae-v2-b-hybrid-800-pretrain"),
            Stage(name="post", recipe="videomae-v2-b-k710-finetune"),
            Stage(name="target", recipe="videomae-v2-b-k400-finetune", changes=short),
        ),
    )
