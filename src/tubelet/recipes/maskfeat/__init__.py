"""MaskFeat (arXiv:2112.09133): mask tokens in, histograms of gradients out; on videos and on images."""

from tubelet.recipes.maskfeat.image import (
    finetune_b1600_in1k,
    finetune_l1600_in1k,
    pretrain_b1600_in1k,
    pretrain_l1600_in1k,
)
from tubelet.recipes.maskfeat.small import finetune_small, finetune_tiny, pretrain_small, pretrain_tiny
from tubelet.recipes.maskfeat.video import (
    finetune_l800_k400,
    finetune_s300_k400,
    pretrain_l800_k400,
    pretrain_s300_k400,
)

__all__ = [
    "finetune_b1600_in1k",
    "finetune_l800_k400",
    "finetune_l1600_in1k",
    "finetune_s300_k400",
    "finetune_small",
    "finetune_tiny",
    "pretrain_b1600_in1k",
    "pretrain_l800_k400",
    "pretrain_l1600_in1k",
    "pretrain_s300_k400",
    "pretrain_small",
    "pretrain_tiny",
]
