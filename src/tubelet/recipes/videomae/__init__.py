"""VideoMAE (arXiv:2203.12602): every published run, and four small runs of our own.

Where the paper and the released scripts differ, a recipe follows the script, for the script gave the released
weights; its docstring and docs/recipes.md say what the paper has. There are no scripts for ViT-L on
Something-Something V2 and for HMDB51: these follow the paper's tables, and the nearest script for the rest.
"""

from tubelet.recipes.videomae.finetune import (
    finetune_b800_k400,
    finetune_b800_ssv2,
    finetune_b1600_k400,
    finetune_b2400_ssv2,
    finetune_b3200_ucf101,
    finetune_b4800_hmdb51,
    finetune_h1600_k400,
    finetune_l1600_k400,
    finetune_l2400_ssv2,
    finetune_s1600_k400,
    finetune_s2400_ssv2,
)
from tubelet.recipes.videomae.pretrain import (
    pretrain_b800_k400,
    pretrain_b800_ssv2,
    pretrain_b1600_k400,
    pretrain_b2400_ssv2,
    pretrain_b3200_ucf101,
    pretrain_b4800_hmdb51,
    pretrain_h1600_k400,
    pretrain_l1600_k400,
    pretrain_l2400_ssv2,
    pretrain_s1600_k400,
    pretrain_s2400_ssv2,
)
from tubelet.recipes.videomae.small import finetune_small, pretrain_small
from tubelet.recipes.videomae.tiny import finetune_tiny, pretrain_tiny

__all__ = [
    "finetune_b800_k400",
    "finetune_b800_ssv2",
    "finetune_b1600_k400",
    "finetune_b2400_ssv2",
    "finetune_b3200_ucf101",
    "finetune_b4800_hmdb51",
    "finetune_h1600_k400",
    "finetune_l1600_k400",
    "finetune_l2400_ssv2",
    "finetune_s1600_k400",
    "finetune_s2400_ssv2",
    "finetune_small",
    "finetune_tiny",
    "pretrain_b800_k400",
    "pretrain_b800_ssv2",
    "pretrain_b1600_k400",
    "pretrain_b2400_ssv2",
    "pretrain_b3200_ucf101",
    "pretrain_b4800_hmdb51",
    "pretrain_h1600_k400",
    "pretrain_l1600_k400",
    "pretrain_l2400_ssv2",
    "pretrain_s1600_k400",
    "pretrain_s2400_ssv2",
    "pretrain_small",
    "pretrain_tiny",
]
