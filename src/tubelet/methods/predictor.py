"""The masked predictor: mask tokens take the place of hidden tokens, a linear head predicts what was there."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Num
from pydantic import Field
from torch import Tensor, nn

from tubelet.methods.masked import MaskedMethod
from tubelet.models.encoders import AnyEncoder, Encoder
from tubelet.models.vit import ViTSpec
from tubelet.spec import Spec
from tubelet.targets.unions import Target
from tubelet.types import ClipShape, Split


class MaskedPredictorSpec(Spec):
    """Encoder of a `MaskedPredictor`; the default is ViT-B (arXiv:2112.09133)."""

    kind: Literal["masked_predictor"] = "masked_predictor"
    encoder: AnyEncoder = Field(default_factory=ViTSpec)

    def build(self, clip: ClipShape, target: Target) -> MaskedPredictor:
        """With fresh weights from torch's default generator.

        ValueError where cube and clip do not fit, or a side of the grid that comes out was rounded up: its tokens would
        stand for no cube of pixels that could be hidden.
        """
        encoder = self.encoder.build(clip, final_norm=True, masked=True)
        clip.grid(self.encoder.cube)
        return MaskedPredictor(encoder, target)


class MaskedPredictor(MaskedMethod):
    """MaskFeat (arXiv:2112.09133, section 3), on the stream "video".

    All tokens go through the encoder, so clips may hide a different number of tokens each: the rows to predict are
    padded to the most of a batch, where the batch is put together, and nothing is asked of the device.

    The encoder has a final norm, and puts its mask token in the hidden places after the embedding and before positions.
    Names: `encoder`, `prediction_head`.
    """

    def __init__(self, encoder: Encoder, target: Target) -> None:
        super().__init__(encoder, target)
        self.prediction_head = nn.Linear(encoder.out_width, target.width(encoder.spec.cube))
        encoder.init_linear(self.prediction_head)

    def predict(self, video: Num[Tensor, "B C T H W"], split: Split) -> Float[Tensor, "B K P"]:
        """Predictions of the wanted tokens from what is not hidden. `video` is uint8 or float in 0..255."""
        assert split.hidden is not None
        tokens = self.encoder(video, hidden=split.hidden)
        clip = torch.arange(len(tokens), device=tokens.device).unsqueeze(1)
        predictions: Tensor = self.prediction_head(tokens[clip, split.wanted])
        return predictions
