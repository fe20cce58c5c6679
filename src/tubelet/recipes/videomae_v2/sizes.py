"""The sizes of VideoMAE V2: those of VideoMAE and ViT-g with cubes of 2 x 14 x 14; all decoders have four blocks."""

from __future__ import annotations

from typing import Final

from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import VIT_B, VIT_G, VIT_H, VIT_L, VIT_S
from tubelet.recipes.videomae.sizes import DECODER_B

DECODER: Final = DecoderSpec(width=512, depth=4, heads=8)
"""Of L and H: the decoder does not grow with the encoder (arXiv:2303.16727, appendix, model architecture)."""
DECODER_G: Final = DecoderSpec(width=512, depth=4, heads=8, mlp_ratio=48 / 11)
"""The code of ViT-g hands its ratio on to the decoder: 2234 hidden units, where the paper's table has 2048."""

__all__ = ["DECODER", "DECODER_B", "DECODER_G", "VIT_B", "VIT_G", "VIT_H", "VIT_L", "VIT_S"]
