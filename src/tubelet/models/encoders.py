"""Every encoder by its kind: the seam between methods and networks.

An encoder has `spec` (with `cube`, what a token of `out_grid` stands for), `clip`, `grid` (tokens that it embeds),
`out_grid` and `out_width` (tokens that come out), and gives those tokens, [B,N,D], for a video.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Discriminator, Tag
from torch import Tensor

from tubelet.models.mvit import MViT
from tubelet.models.mvit_spec import MViTSpec
from tubelet.models.vit import ViT, ViTSpec
from tubelet.nn.init import truncated_normal_
from tubelet.spec import ByKind
from tubelet.types import ClipShape


def _kind(value: Any) -> str:
    """Plain data without a kind are a ViT's, as they were before there were others."""
    return str(value.get("kind", "vit") if isinstance(value, dict) else getattr(value, "kind", value))


Encoder = ViT | MViT
EncoderSpec = Annotated[Annotated[ViTSpec, Tag("vit")] | Annotated[MViTSpec, Tag("mvit")], Discriminator(_kind), ByKind]
"""Size and options of an encoder, as a recipe holds them."""


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
