"""The masked autoencoder: hidden tokens are dropped, a light decoder predicts them."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float, Num
from pydantic import Field, model_validator
from torch import Tensor

from tubelet.methods.masked import MaskedMethod
from tubelet.models.decoder import Decoder, DecoderSpec
from tubelet.models.encoders import AnyEncoder, Encoder
from tubelet.models.vit import ViTSpec
from tubelet.nn.init import xavier_
from tubelet.spec import Spec
from tubelet.targets.unions import Target
from tubelet.types import ClipShape, Split


class MaskedAutoencoderSpec(Spec):
    """Encoder and decoder of a `MaskedAutoencoder`; the default is VideoMAE ViT-B (arXiv:2203.12602)."""

    kind: Literal["masked_autoencoder"] = "masked_autoencoder"
    encoder: AnyEncoder = Field(default_factory=ViTSpec)
    decoder: DecoderSpec = Field(default_factory=DecoderSpec)

    def build(self, clip: ClipShape, target: Target) -> MaskedAutoencoder:
        """With fresh weights from torch's default generator. ValueError where cube and clip do not fit."""
        encoder = self.encoder.assemble(clip, final_norm=True)
        width = target.width(self.encoder.cube)
        decoder = Decoder(
            self.decoder,
            encoder.out_grid,
            encoder_width=encoder.out_width,
            target_width=width,
            trained_grid=self.encoder.trained_grid,
        )
        method = MaskedAutoencoder(encoder, decoder, target)
        method.apply(xavier_)
        return method

    @model_validator(mode="after")
    def _encoder_can_drop(self) -> MaskedAutoencoderSpec:
        if not self.encoder.can_drop:
            raise ValueError(
                f"a masked_autoencoder drops hidden tokens, an {self.encoder.kind} needs all: "
                "choose model=masked_predictor"
            )
        return self


class MaskedAutoencoder(MaskedMethod):
    """VideoMAE (arXiv:2203.12602, section 3), on the stream "video"."""

    def __init__(self, encoder: Encoder, decoder: Decoder, target: Target) -> None:
        super().__init__(encoder, target)
        self.decoder = decoder

    def predict(self, video: Num[Tensor, "B C T H W"], split: Split) -> Float[Tensor, "B K P"]:
        """Predictions of the wanted tokens from the seen ones. `video` is uint8 or float in 0..255.

        ValueError where the clips show another number of tokens each: they could not stand in one tensor.
        """
        if split.seen.shape[1] == 0:
            raise ValueError(
                "every clip of a batch must show the encoder equally many tokens, and this mask does not: "
                "choose mask=tube, random or frame, or model=masked_predictor"
            )
        predictions: Tensor = self.decoder(self.encoder(video, split.seen), split)
        return predictions
