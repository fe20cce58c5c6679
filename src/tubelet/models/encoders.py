"""Every encoder by its kind: the seam between methods and networks.

An encoder has `spec` (with `cube`, what a token of `out_grid` stands for), `clip`, `grid` (tokens that it embeds),
`out_grid` and `out_width` (tokens that come out), and gives those tokens, [B,N,D], for a video.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Discriminator, Tag
from torch import Tensor, nn

from tubelet.models.mvit.model import MViT
from tubelet.models.mvit.spec import MViTSpec
from tubelet.models.vit import ViT, ViTSpec
from tubelet.nn.block import Block
from tubelet.nn.init import biased_normal_, truncated_normal_
from tubelet.nn.multiscale.block import PoolingBlock
from tubelet.spec import ByKind
from tubelet.types import ClipShape


def _kind(value: Any) -> str:
    """Plain data without a kind are a ViT's, as they were before there were others."""
    return str(value.get("kind", "vit") if isinstance(value, dict) else getattr(value, "kind", value))


Encoder = ViT | MViT
EncoderSpec = Annotated[Annotated[ViTSpec, Tag("vit")] | Annotated[MViTSpec, Tag("mvit")], Discriminator(_kind), ByKind]
"""Size and options of an encoder, as a recipe holds them."""


BLOCKS = (Block, PoolingBlock)
"""What encoders and decoders are made of: gathered, compiled and recomputed one by one."""


def encoder_for(spec: ViTSpec | MViTSpec, clip: ClipShape, state: Mapping[str, Tensor]) -> Encoder:
    """The encoder that tensors of these names fill: with a final norm and a mask token where they have them."""
    final_norm = "norm.weight" in state
    if isinstance(spec, MViTSpec):
        return MViT(spec, clip, final_norm=final_norm, masked="mask_token" in state)
    return ViT(spec, clip, final_norm=final_norm, masked="mask_token" in state)


def classifier_encoder(spec: ViTSpec | MViTSpec, clip: ClipShape, *, final_norm: bool) -> Encoder:
    """An encoder with the first weights that its authors train classifiers from, drawn from torch's default generator.

    ValueError where cube and clip do not fit.
    """
    if isinstance(spec, MViTSpec):
        return MViT(spec, clip, final_norm=final_norm, masked=False)
    encoder = ViT(spec, clip, final_norm=final_norm)
    encoder.apply(truncated_normal_)
    return encoder


def masked_encoder(spec: ViTSpec | MViTSpec, clip: ClipShape) -> Encoder:
    """The same for a masked predictor: with a mask token and a final norm.

    ValueError where cube and clip do not fit, or a side of the grid that comes out was rounded up: its tokens would
    stand for no cube of pixels that could be hidden.
    """
    if isinstance(spec, MViTSpec):
        multiscale = MViT(spec, clip, final_norm=True, masked=True)
        clip.grid(spec.cube)
        return multiscale
    encoder = ViT(spec, clip, final_norm=True, masked=True)
    encoder.apply(truncated_normal_)
    return encoder


def linear_on(encoder: Encoder, outputs: int) -> nn.Linear:
    """A linear map of its tokens, with first weights as those inside it."""
    linear = nn.Linear(encoder.out_width, outputs)
    (biased_normal_ if isinstance(encoder, MViT) else truncated_normal_)(linear)
    return linear
