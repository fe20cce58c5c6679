"""The masked predictor: mask tokens take the place of hidden tokens, a linear head predicts what was there."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Num
from pydantic import Field
from torch import Tensor, nn

from tubelet.models.vit import ViT, ViTSpec
from tubelet.nn.init import truncated_normal_
from tubelet.spec import Spec
from tubelet.targets.kinds import Target
from tubelet.types import Batch, ClipShape, Cube, Grid, Output, Split


class MaskedPredictorSpec(Spec):
    """Encoder of a `MaskedPredictor`; the default is ViT-B (arXiv:2112.09133)."""

    kind: Literal["masked_predictor"] = "masked_predictor"
    encoder: ViTSpec = Field(default_factory=ViTSpec)

    def build(self, clip: ClipShape, target: Target) -> MaskedPredictor:
        """With fresh weights from torch's default generator. ValueError where cube and clip do not fit."""
        encoder = ViT(self.encoder, clip, final_norm=True, masked=True)
        encoder.apply(truncated_normal_)
        return MaskedPredictor(encoder, target)


class MaskedPredictor(nn.Module):
    """MaskFeat (arXiv:2112.09133, section 3), on the stream "video".

    All tokens go through the encoder, so clips may hide another number of tokens each: the rows to predict are padded
    to the most of a batch, where the batch is put together, and nothing is asked of the device.

    An encoder has: `spec.cube`, what a token of its output covers; `out_grid` and `out_width` of its output; a final
    norm; and `forward(video, hidden=...)` with `hidden` in `out_grid`, in whose places it puts its `mask_token` after
    the patch embedding and before positions. Names: `encoder`, `prediction_head`.
    """

    def __init__(self, encoder: ViT, target: Target) -> None:
        super().__init__()
        self.encoder = encoder
        self.target = target
        self.prediction_head = nn.Linear(encoder.out_width, target.width(encoder.spec.cube))
        truncated_normal_(self.prediction_head)

    @property
    def grid(self) -> Grid:
        """Token grid that masks are drawn on: that of the encoder's output."""
        return self.encoder.out_grid

    @property
    def cube(self) -> Cube:
        """What a token of this grid covers."""
        return self.encoder.spec.cube

    def forward(self, batch: Batch) -> Output:
        """Mean loss over the scored tokens of the batch, of which each counts as much, whatever clip it is of."""
        video = batch.clips["video"].video
        split = batch.splits["video"]
        prediction = self.predict(video, split)
        target = self.target.rows(video, split.wanted, self.cube)
        return Output(self.target.loss(prediction, target, split.weight))

    def predict(self, video: Num[Tensor, "B C T H W"], split: Split) -> Float[Tensor, "B K P"]:
        """Predictions of the wanted tokens from what is not hidden. `video` is uint8 or float in 0..255."""
        assert split.hidden is not None
        tokens = self.encoder(video, hidden=split.hidden)
        clip = torch.arange(len(tokens), device=tokens.device).unsqueeze(1)
        predictions: Tensor = self.prediction_head(tokens[clip, split.wanted])
        return predictions

    def count(self, batch: Batch) -> float:
        """How much this batch weighs in a mean over batches: its scored tokens. Call it before `.to(device)`."""
        return float(batch.splits["video"].weight.sum())
