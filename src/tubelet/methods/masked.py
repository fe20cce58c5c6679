"""What both shapes of masked pre-training share: hidden tokens are predicted, and the wanted ones are scored."""

from __future__ import annotations

from jaxtyping import Float, Num
from torch import Tensor, nn

from tubelet.masks import All, DecodedRule
from tubelet.models.encoders import Encoder
from tubelet.rng import stream_rng
from tubelet.targets.base import Score
from tubelet.targets.unions import Target
from tubelet.types import VIDEO, Batch, ClipShape, Cube, Grid, Output, Split


class MaskedMethod(nn.Module):
    """A method whose `encoder` hides tokens from itself; a subclass says how it predicts them.

    It learns from the stream "video", and from as many others as it is told of (`add_stream`), by the same weights.
    `decode` chooses the predicted tokens where they follow from what is in the clip; whoever builds the method sets it.
    """

    def __init__(self, encoder: Encoder, target: Target) -> None:
        super().__init__()
        self.encoder = encoder
        self.target = target
        self.decode: DecodedRule = All()
        self.other_targets: dict[str, Target] = {}
        self.other_decodes: dict[str, DecodedRule] = {}

    @property
    def grid(self) -> Grid:
        """Token grid that masks are drawn on: that of the encoder's output."""
        return self.encoder.out_grid

    @property
    def cube(self) -> Cube:
        """What a token of this grid covers."""
        return self.encoder.spec.cube

    def add_stream(self, name: str, clip: ClipShape, target: Target, decode: DecodedRule = All()) -> None:
        """Learn from a further stream, too. ValueError where its clips or its target do not fit this method."""
        if clip != self.encoder.clip:
            raise ValueError(
                f"streams.{name}.clip is {_size(clip)}, and the encoder takes {_size(self.encoder.clip)}: "
                "leave the clip out, or make both the same"
            )
        width, known = target.width(self.cube), self.target.width(self.cube)
        if width != known:
            raise ValueError(
                f"streams.{name}.target {target.kind} has {width} numbers a token, and the head of this model predicts "
                f"{known}: leave the target out, or choose one of the same size"
            )
        self.other_targets[name], self.other_decodes[name] = target, decode

    def forward(self, batch: Batch) -> Output:
        """Mean loss over the scored tokens of each stream, of which each counts as much, whatever clip it is of."""
        scores = {name: self._score(name, batch) for name in batch.clips}
        return Output(
            {name: score.loss for name, score in scores.items()},
            {name: score.metrics for name, score in scores.items()},
        )

    def _score(self, name: str, batch: Batch) -> Score:
        video, given = batch.clips[name].video, batch.splits[name]
        target = self.target if name == VIDEO else self.other_targets[name]
        with stream_rng(name):
            split = self.chosen(given, video, name)
            prediction = self.predict(video, split)
        known = batch.targets.get(name) if split is given else None  # what the device chose, nobody knew beforehand
        wanted = target.rows(video, split.wanted, self.cube) if known is None else known
        return target.score(prediction, wanted, split.weight)

    def chosen(self, split: Split, video: Num[Tensor, "B C T H W"], name: str = VIDEO) -> Split:
        """The split with the wanted tokens of these clips, by the stream's decode rule; shapes and weights stay."""
        decode = self.decode if name == VIDEO else self.other_decodes[name]
        return decode.choose_wanted(split, video, self.cube)

    def predict(self, video: Num[Tensor, "B C T H W"], split: Split) -> Float[Tensor, "B K P"]:
        """Predictions of the wanted tokens. `video` is uint8 or float in 0..255."""
        raise NotImplementedError

    def count(self, batch: Batch) -> dict[str, float]:
        """How much each stream weighs in a mean over batches: its scored tokens. Call it before `.to(device)`."""
        return {name: float(split.weight.sum()) for name, split in batch.splits.items()}

    def state_buffers(self) -> set[str]:
        """None: all buffers are constants."""
        return set()


def _size(clip: ClipShape) -> str:
    return f"{clip.frames} frames of {clip.size} pixels"
