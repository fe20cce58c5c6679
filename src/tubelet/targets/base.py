"""What targets that are made of the clip itself share."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from tubelet.spec import Spec
from tubelet.types import ClipShape, Cube


class OwnTarget(Spec):
    """A target that needs nothing but the clip; a subclass has `kind`, `width` and `rows`."""

    def width(self, cube: Cube) -> int:
        """Numbers per token."""
        raise NotImplementedError

    def peak_bytes(self, clip: ClipShape, cube: Cube, *, rows: int, clips: int, on_cpu: bool) -> int:
        """Most bytes that `rows` holds at once for so many clips with so many wanted tokens in all, result included."""
        del clip, clips, on_cpu
        return 8 * rows * self.width(cube)  # pixels, and what their mean was taken from or the result

    def loss(
        self, prediction: Float[Tensor, "B K P"], target: Float[Tensor, "B K P"], weight: Float[Tensor, "B K"]
    ) -> Float[Tensor, ""]:
        """Squared error, mean over the numbers of a token and over tokens by weight."""
        return weighted_squared_error(prediction, target, weight)


def weighted_squared_error(
    prediction: Float[Tensor, "B K P"], target: Float[Tensor, "B K P"], weight: Float[Tensor, "B K"]
) -> Float[Tensor, ""]:
    """Mean over P, then over the tokens of the batch by weight; in float32 under autocast too."""
    return weighted_mean((prediction.float() - target).square().mean(-1), weight)


def weighted_mean(error: Float[Tensor, "B K"], weight: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
    """Over the tokens of the batch, by weight; 0 where none has any, as in a piece of a step that weighs nothing."""
    total = weight.sum()
    return (error * weight).sum() / (total + (total == 0))
