"""What `mask=` and `decode=` may name in a recipe."""

from __future__ import annotations

from typing import Annotated

from tubelet.masks.blocks import BlockTube, CubeMask
from tubelet.masks.by_score import Motion
from tubelet.masks.decode import All, FrameDecode, RandomDecode, RunningCell
from tubelet.masks.rules import Frame, Random, Tube
from tubelet.spec import OneOf

MaskRule = Annotated[
    Tube | Random | Frame | CubeMask | BlockTube,
    OneOf(),
]
"""What the encoder does not see."""

DecodeRule = Annotated[
    All | RunningCell | FrameDecode | RandomDecode | Motion,
    OneOf(),
]
"""What the decoder predicts."""
