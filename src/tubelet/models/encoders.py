"""Every encoder by its kind: to add one, write its file and add its line to `ENCODERS`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

from torch import Tensor, nn

from tubelet.models.base import Encoder as Encoder
from tubelet.models.base import EncoderSpec as EncoderSpec
from tubelet.models.decoder import Decoder
from tubelet.models.mvit.model import MViTSpec
from tubelet.models.swin.model import SwinSpec
from tubelet.models.timesformer import TimeSformerSpec
from tubelet.models.vit import ViTSpec
from tubelet.spec import OneOf
from tubelet.types import ClipShape

ENCODERS: Final[dict[str, type[EncoderSpec]]] = {
    "vit": ViTSpec,
    "mvit": MViTSpec,
    "swin": SwinSpec,
    "timesformer": TimeSformerSpec,
}
"""What `model.encoder` may be."""

AnyEncoder = Annotated[EncoderSpec, OneOf(ENCODERS, unnamed="vit")]
"""An encoder as a recipe holds it. Plain data without a kind are a ViT's, as they were before there were others."""


def encoder_for(spec: EncoderSpec, clip: ClipShape, state: Mapping[str, Tensor]) -> Encoder:
    """The encoder that tensors of these names fill: with a final norm and a mask token where they have them."""
    return spec.assemble(clip, final_norm="norm.weight" in state, masked="mask_token" in state)


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """The blocks of all encoders and decoders within: what is gathered and compiled one by one."""
    owners = [part for part in module.modules() if isinstance(part, Encoder | Decoder)]
    return [block for owner in owners for block in owner.stack()]
