"""What both shapes of masked pre-training share: hidden tokens are predicted, and the wanted ones are scored."""

from __future__ import annotations

from jaxtyping import Float, Num
from torch import Tensor, nn

from tubelet.masks import All, DecodedRule
from tubelet.models.encoders import Encoder
from tubelet.targets.unions import Target
from tubelet.types import Batch, Cube, Grid, Output, Split


class MaskedMethod(nn.Module):
    """A method on the stream "video" whose `encoder` hides tokens from itself; a subclass says how it predicts them.

    `decode` chooses the predicted tokens where they follow from what is in the clip; whoever builds the method sets it.
    """

    def __init__(self, encoder: Encoder, target: Target) -> None:
        super().__init__()
        self.encoder = encoder
        self.target = target
        self.decode: DecodedRule = All()

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
        split = self.chosen(batch.splits["video"], video)
        prediction = self.predict(video, split)
        target = self.target.rows(video, split.wanted, self.cube)
        return Output(*self.target.score(prediction, target, split.weight))

    def chosen(self, split: Split, video: Num[Tensor, "B C T H W"]) -> Split:
        """The split with the wanted tokens of these clips, by the decode rule; shapes and weights stay."""
        return self.decode.choose_wanted(split, video, self.cube)

    def predict(self, video: Num[Tensor, "B C T H W"], split: Split) -> Float[Tensor, "B K P"]:
        """Predictions of the wanted tokens. `video` is uint8 or float in 0..255."""
        raise NotImplementedError

    def count(self, batch: Batch) -> float:
        """How much this batch weighs in a mean over batches: its scored tokens. Call it before `.to(device)`."""
        return float(batch.splits["video"].weight.sum())
