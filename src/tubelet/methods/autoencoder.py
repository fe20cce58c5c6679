"""The masked autoencoder: hidden tokens are dropped, a light decoder predicts them."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float, Num
from pydantic import Field
from torch import Tensor, nn

from tubelet.models.decoder import Decoder, DecoderSpec
from tubelet.models.vit import ViT, ViTSpec
from tubelet.nn.init import xavier_
from tubelet.spec import Spec
from tubelet.targets.kinds import Target
from tubelet.types import Batch, ClipShape, Cube, Grid, Output, Split


class MaskedAutoencoderSpec(Spec):
    """Encoder and decoder of a `MaskedAutoencoder`; the default is VideoMAE ViT-B (arXiv:2203.12602)."""

    kind: Literal["masked_autoencoder"] = "masked_autoencoder"
    encoder: ViTSpec = Field(default_factory=ViTSpec)
    decoder: DecoderSpec = Field(default_factory=DecoderSpec)

    def build(self, clip: ClipShape, target: Target) -> MaskedAutoencoder:
        """With fresh weights from torch's default generator. ValueError where cube and clip do not fit."""
        encoder = ViT(self.encoder, clip, final_norm=True)
        width = target.width(self.encoder.cube)
        decoder = Decoder(
            self.decoder,
            encoder.grid,
            encoder_width=self.encoder.width,
            target_width=width,
            trained_grid=self.encoder.trained_grid,
        )
        method = MaskedAutoencoder(encoder, decoder, target)
        method.apply(xavier_)
        return method


class MaskedAutoencoder(nn.Module):
    """VideoMAE (arXiv:2203.12602, section 3), on the stream "video"."""

    def __init__(self, encoder: ViT, decoder: Decoder, target: Target) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.target = target

    @property
    def grid(self) -> Grid:
        """Token grid that masks are drawn on."""
        return self.encoder.grid

    @property
    def cube(self) -> Cube:
        """What a token of this grid covers."""
        return self.encoder.spec.cube

    def forward(self, batch: Batch) -> Output:
        """Mean loss over the scored tokens of the batch."""
        video = batch.clips["video"].video
        split = batch.splits["video"]
        prediction = self.predict(video, split)
        target = self.target.rows(video, split.wanted, self.cube)
        return Output(self.target.loss(prediction, target, split.weight))

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

    def count(self, batch: Batch) -> float:
        """How much this batch weighs in a mean over batches: its scored tokens. Call it before `.to(device)`."""
        return float(batch.splits["video"].weight.sum())
