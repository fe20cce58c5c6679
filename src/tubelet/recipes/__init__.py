"""One file, or folder, per paper: functions that return a filled recipe. `RECIPES` names all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tubelet.recipe import FinetuneRecipe, PretrainRecipe
from tubelet.recipes import demo, videomae

RECIPES: Final[dict[str, Callable[[], PretrainRecipe | FinetuneRecipe]]] = {
    "demo-pretrain": demo.demo_pretrain,
    "demo-finetune": demo.demo_finetune,
    "demo-scratch": demo.demo_scratch,
    "videomae-ti-cpu-pretrain": videomae.pretrain_tiny,
    "videomae-ti-cpu-finetune": videomae.finetune_tiny,
    "videomae-s-small-pretrain": videomae.pretrain_small,
    "videomae-s-small-finetune": videomae.finetune_small,
    "videomae-s-k400-1600-pretrain": videomae.pretrain_s1600_k400,
    "videomae-s-k400-1600-finetune": videomae.finetune_s1600_k400,
    "videomae-b-k400-800-pretrain": videomae.pretrain_b800_k400,
    "videomae-b-k400-800-finetune": videomae.finetune_b800_k400,
    "videomae-b-k400-1600-pretrain": videomae.pretrain_b1600_k400,
    "videomae-b-k400-1600-finetune": videomae.finetune_b1600_k400,
    "videomae-l-k400-1600-pretrain": videomae.pretrain_l1600_k400,
    "videomae-l-k400-1600-finetune": videomae.finetune_l1600_k400,
    "videomae-h-k400-1600-pretrain": videomae.pretrain_h1600_k400,
    "videomae-h-k400-1600-finetune": videomae.finetune_h1600_k400,
    "videomae-s-ssv2-2400-pretrain": videomae.pretrain_s2400_ssv2,
    "videomae-s-ssv2-2400-finetune": videomae.finetune_s2400_ssv2,
    "videomae-b-ssv2-800-pretrain": videomae.pretrain_b800_ssv2,
    "videomae-b-ssv2-800-finetune": videomae.finetune_b800_ssv2,
    "videomae-b-ssv2-2400-pretrain": videomae.pretrain_b2400_ssv2,
    "videomae-b-ssv2-2400-finetune": videomae.finetune_b2400_ssv2,
    "videomae-l-ssv2-2400-pretrain": videomae.pretrain_l2400_ssv2,
    "videomae-l-ssv2-2400-finetune": videomae.finetune_l2400_ssv2,
    "videomae-b-ucf101-3200-pretrain": videomae.pretrain_b3200_ucf101,
    "videomae-b-ucf101-3200-finetune": videomae.finetune_b3200_ucf101,
    "videomae-b-hmdb51-4800-pretrain": videomae.pretrain_b4800_hmdb51,
    "videomae-b-hmdb51-4800-finetune": videomae.finetune_b4800_hmdb51,
}
"""Every recipe by the name that the command line takes."""
