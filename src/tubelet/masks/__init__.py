"""Which tokens are hidden from the encoder, which the decoder predicts, and which enter the loss: rules, no weights."""

from tubelet.masks.base import DecodeSpec, LossOn, MaskSpec, Ratio, Spared
from tubelet.masks.blocks import BlockTube, Cell, CubeMask
from tubelet.masks.by_score import Motion, ScoredDecode
from tubelet.masks.decode import All, FrameDecode, RandomDecode, RunningCell, scored
from tubelet.masks.draw import DecodedRule, HasMaskRules, HiddenRule, MaskRules, choose_decoded, draw_mask
from tubelet.masks.rules import Frame, Random, Tube
from tubelet.masks.unions import DecodeRule, MaskRule

__all__ = [
    "All",
    "BlockTube",
    "Cell",
    "CubeMask",
    "DecodeRule",
    "DecodeSpec",
    "DecodedRule",
    "Frame",
    "FrameDecode",
    "HasMaskRules",
    "HiddenRule",
    "LossOn",
    "MaskRule",
    "MaskRules",
    "MaskSpec",
    "Motion",
    "Random",
    "RandomDecode",
    "Ratio",
    "RunningCell",
    "ScoredDecode",
    "Spared",
    "Tube",
    "choose_decoded",
    "draw_mask",
    "scored",
]
