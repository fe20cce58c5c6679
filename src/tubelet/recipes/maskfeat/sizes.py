"""Encoders of MaskFeat's runs. In pre-training the last stage keeps its grid of 14 x 14, so that tokens are small."""

from __future__ import annotations

from tubelet.models.mvit import model as mvit
from tubelet.models.mvit.model import MViTSpec, MViTStage
from tubelet.models.vit import ViTSpec
from tubelet.spec import replace

MVIT_S = replace(mvit.MVIT_S, widen_in="mlp")
"""36 M parameters; widens in the MLP, as all MaskFeat models of SlowFast (not as its supervised MViTv2)."""
MVIT_L = replace(mvit.MVIT_L, widen_in="mlp")
IMAGE_VIT_B = ViTSpec(tubelet=1, learnable_positions=True)
"""Cubes of one frame: 2-D patches."""
IMAGE_VIT_L = replace(IMAGE_VIT_B, width=1024, depth=24, heads=16)
MVIT_TI = MViTSpec(
    width=64,
    depth=4,
    stages=(MViTStage(start=1),),
    widen_in="mlp",
    patch_kernel=(3, 15, 15),
    patch_stride=(2, 8, 8),
    patch_padding=(1, 7, 7),
    kv_stride=(1, 4, 4),
)
"""0.8 M parameters: two stages, and cubes of 2 x 16 x 16 come out."""


def fine(encoder: MViTSpec) -> MViTSpec:
    """As it is pre-trained: the last stage widens and does not get coarser."""
    return replace(encoder, last_stage_stride=1)
