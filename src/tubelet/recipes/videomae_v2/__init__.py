"""VideoMAE V2 (arXiv:2303.16727): every published run, and three small runs of our own.

Where the paper and the released scripts differ, a recipe follows the script, for the script gave the released
weights; its docstring and docs/recipes.md say what the paper has. Distilled models and clips longer than 16 frames have
no script: these follow the paper's tables. What neither says is marked "not in our sources".
"""

from tubelet.recipes.videomae_v2.distilled import (
    finetune_b_k710_distilled,
    finetune_b_ssv2_distilled,
    finetune_s_k710_distilled,
)
from tubelet.recipes.videomae_v2.finetune import (
    finetune_b_k400,
    finetune_b_k710,
    finetune_b_ssv2,
    finetune_h_k400,
    finetune_h_k600,
    finetune_h_k710,
    finetune_h_ssv2,
    finetune_l_k400,
    finetune_l_ssv2,
)
from tubelet.recipes.videomae_v2.giant import (
    finetune_g_k400,
    finetune_g_k710,
    finetune_g_k710_hmdb51,
    finetune_g_k710_k400,
    finetune_g_k710_k600,
    finetune_g_k710_ucf101,
    finetune_g_ssv2,
)
from tubelet.recipes.videomae_v2.longer import (
    finetune_g_k400_64x266,
    finetune_g_k600_64x266,
    finetune_h_k400_64x288,
    finetune_h_k600_32x384,
)
from tubelet.recipes.videomae_v2.pretrain import (
    pretrain_b800_hybrid,
    pretrain_b800_ssv2,
    pretrain_g1200_hybrid,
    pretrain_h1200_hybrid,
    pretrain_l1200_hybrid,
)
from tubelet.recipes.videomae_v2.progressive import progressive_b, progressive_g
from tubelet.recipes.videomae_v2.small import finetune_v2_small, pretrain_v2_small, pretrain_v2_tiny

__all__ = [
    "finetune_b_k400",
    "finetune_b_k710",
    "finetune_b_k710_distilled",
    "finetune_b_ssv2",
    "finetune_b_ssv2_distilled",
    "finetune_g_k400",
    "finetune_g_k400_64x266",
    "finetune_g_k600_64x266",
    "finetune_g_k710",
    "finetune_g_k710_hmdb51",
    "finetune_g_k710_k400",
    "finetune_g_k710_k600",
    "finetune_g_k710_ucf101",
    "finetune_g_ssv2",
    "finetune_h_k400",
    "finetune_h_k400_64x288",
    "finetune_h_k600",
    "finetune_h_k600_32x384",
    "finetune_h_k710",
    "finetune_h_ssv2",
    "finetune_l_k400",
    "finetune_l_ssv2",
    "finetune_s_k710_distilled",
    "finetune_v2_small",
    "pretrain_b800_hybrid",
    "pretrain_b800_ssv2",
    "pretrain_g1200_hybrid",
    "pretrain_h1200_hybrid",
    "pretrain_l1200_hybrid",
    "pretrain_v2_small",
    "pretrain_v2_tiny",
    "progressive_b",
    "progressive_g",
]
