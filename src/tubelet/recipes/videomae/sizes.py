"""The sizes of VideoMAE: cubes of 2 x 16 x 16, joint space-time attention, a decoder for each encoder."""

from __future__ import annotations

from typing import Final

from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViTSpec

VIT_S: Final = ViTSpec(width=384, depth=12, heads=6)
VIT_B: Final = ViTSpec(width=768, depth=12, heads=12)
VIT_L: Final = ViTSpec(width=1024, depth=24, heads=16)
VIT_H: Final = ViTSpec(width=1280, depth=32, heads=16)

DECODER_S: Final = DecoderSpec(width=192, depth=4, heads=3)
DECODER_B: Final = DecoderSpec(width=384, depth=4, heads=6)
DECODER_L: Final = DecoderSpec(width=512, depth=12, heads=8)  # 12 blocks in the scripts for L and H, 4 in the paper
DECODER_H: Final = DecoderSpec(width=640, depth=12, heads=8)
