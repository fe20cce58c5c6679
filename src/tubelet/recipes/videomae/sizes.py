"""The sizes of VideoMAE: cubes of 2 x 16 x 16, joint space-time attention, a decoder for each encoder."""

from __future__ import annotations

from typing import Final

from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import VIT_B, VIT_H, VIT_L, VIT_S

DECODER_S: Final = DecoderSpec(width=192, depth=4, heads=3)
DECODER_B: Final = DecoderSpec(width=384, depth=4, heads=6)
DECODER_L: Final = DecoderSpec(width=512, depth=12, heads=8)  # 12 blocks in the scripts for L and H, 4 in the paper
DECODER_H: Final = DecoderSpec(width=640, depth=12, heads=8)

__all__ = ["DECODER_B", "DECODER_H", "DECODER_L", "DECODER_S", "VIT_B", "VIT_H", "VIT_L", "VIT_S"]
