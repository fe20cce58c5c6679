"""Which tokens are hidden from the encoder, which the decoder predicts, and which enter the loss: rules, no weights."""

from tubelet.masks.blocks import UNEVEN, BlockTube, Cell, Cube
from tubelet.masks.decode import All, DecodeRule, FrameDecode, LossOn, RandomDecode, RunningCell, Spared, scored
from tubelet.masks.draw import DecodedRule, HasMaskRules, HiddenRule, MaskRules, draw_mask
from tubelet.masks.pick import Ratio
from tubelet.masks.rules import Frame, MaskRule, Random, Tube

__all__ = [
    "UNEVEN",
    "All",
    "BlockTube",
    "Cell",
    "Cube",
    "DecodeRule",
    "DecodedRule",
    "Frame",
    "FrameDecode",
    "HasMaskRules",
    "HiddenRule",
    "LossOn",
    "MaskRule",
    "MaskRules",
    "Random",
    "RandomDecode",
    "Ratio",
    "RunningCell",
    "Spared",
    "Tube",
    "draw_mask",
    "scored",
]
