"""What all targets share: their loss, the error between rows of numbers, and what a recipe may ask of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final, Literal, NamedTuple, TypeVar

from jaxtyping import Float, Num
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from tubelet.spec import Spec
from tubelet.types import ClipShape, Cube

Picture = Literal["pixels", "lines"]
"""How `tubelet.pictures.reconstruct` draws a target: as pixels, or histograms as lines."""

Asks = Literal["features", "classes", "ids"]
"""What a target asks its teacher for: features of each token, logits of the clip, or the number of each token."""

Error = Literal["squared", "l1", "smooth_l1", "cosine"]
"""How far a row of numbers is off."""

TargetT = TypeVar("TargetT", bound="TargetBase")

DEFAULT_BETA: Final = 1.0


class Score(NamedTuple):
    """The loss to follow, and what to log beside it: the loss of each part where there are several."""

    loss: Float[Tensor, ""]
    metrics: dict[str, Tensor]


class TargetBase(Spec):
    """A target as a recipe says it; a subclass has `kind`, `width`, `rows` and `loss`.

    `asks` is None for those made from the clip alone; the others need a teacher. `picture` says how it is drawn, None
    where it cannot be. `lacks_colours`: its rows say nothing of a cube's own colours. `has_ids`: a row is one number of
    a vocabulary, and not as wide as the prediction.
    """

    asks: ClassVar[Asks | None] = None
    picture: ClassVar[Picture | None] = None
    lacks_colours: ClassVar[bool] = False
    has_ids: ClassVar[bool] = False
    kind: str

    @property
    def specs(self: TargetT) -> tuple[TargetT, ...]:
        """The targets that it is made of: itself. Several targets of a run give more."""
        return (self,)

    def with_teacher(self: TargetT, teacher: str) -> TargetT:
        """Itself: it learns from no stage before it."""
        del teacher
        return self

    @property
    def shown(self: TargetT) -> TargetT:
        """The target that pictures are of: itself."""
        return self

    @property
    def shown_columns(self) -> slice:
        """Which numbers of a prediction are for `shown`: all."""
        return slice(None)

    def loss(
        self, prediction: Float[Tensor, "B K P"], target: Num[Tensor, "B K ..."], weight: Float[Tensor, "B K"]
    ) -> Float[Tensor, ""]:
        """How far off, mean over tokens by weight; float32 under autocast too."""
        raise NotImplementedError

    def score(
        self, prediction: Float[Tensor, "B K P"], target: Num[Tensor, "B K ..."], weight: Float[Tensor, "B K"]
    ) -> Score:
        """The loss, and nothing beside it."""
        return Score(self.loss(prediction, target, weight), {})


class NumbersTarget(TargetBase):
    """A target whose rows are numbers, as wide as the prediction: `error` says how far off that is."""

    error: Error = Field(default="squared", description="squared, l1, smooth_l1, or cosine (1 - cosine)")
    beta: float = Field(
        default=DEFAULT_BETA,
        gt=0,
        description="of smooth_l1: below it an error d counts as d^2 / (2 beta), above as d - beta / 2",
    )

    @model_validator(mode="after")
    def _beta_has_a_use(self) -> NumbersTarget:
        if self.beta != DEFAULT_BETA and self.error != "smooth_l1":
            raise ValueError(f"beta is for error=smooth_l1, not {self.error}; leave it out")
        return self

    def loss(
        self, prediction: Float[Tensor, "B K P"], target: Float[Tensor, "B K P"], weight: Float[Tensor, "B K"]
    ) -> Float[Tensor, ""]:
        """`error`, mean over the numbers of a token (1 - cosine is of all of them) and over tokens by weight."""
        return weighted_mean(ERRORS[self.error](prediction.float(), target, self.beta), weight)


class OwnTarget(NumbersTarget):
    """A target that is made from the clip alone; a subclass has `kind`, `width` and `rows`."""

    @property
    def teacher(self) -> None:
        """None: no network is asked."""
        return

    @property
    def networks(self) -> tuple[()]:
        """None."""
        return ()

    def ready(self: TargetT, read: Callable[[Any], Any], cube: Cube) -> TargetT:
        """Itself: nothing need be read."""
        del read, cube
        return self

    def width(self, cube: Cube) -> int:
        """Numbers per token."""
        raise NotImplementedError

    def peak_bytes(self, clip: ClipShape, cube: Cube, *, rows: int, clips: int, on_cpu: bool) -> int:
        """Most bytes that `rows` holds at once for so many clips with so many wanted tokens in all, result included."""
        del clip, clips, on_cpu
        return 8 * rows * self.width(cube)  # pixels, and what their mean was taken from or the result


def _squared(prediction: Float[Tensor, "B K P"], target: Float[Tensor, "B K P"], beta: float) -> Float[Tensor, "B K"]:
    del beta
    return (prediction - target).square().mean(-1)


def _l1(prediction: Float[Tensor, "B K P"], target: Float[Tensor, "B K P"], beta: float) -> Float[Tensor, "B K"]:
    del beta
    return (prediction - target).abs().mean(-1)


def _smooth_l1(prediction: Float[Tensor, "B K P"], target: Float[Tensor, "B K P"], beta: float) -> Float[Tensor, "B K"]:
    return F.smooth_l1_loss(prediction, target, reduction="none", beta=beta).mean(-1)


def _cosine(prediction: Float[Tensor, "B K P"], target: Float[Tensor, "B K P"], beta: float) -> Float[Tensor, "B K"]:
    del beta
    return 1.0 - F.cosine_similarity(prediction, target, dim=-1)


ERRORS: Final[dict[Error, Callable[[Tensor, Tensor, float], Tensor]]] = {
    "squared": _squared,
    "l1": _l1,
    "smooth_l1": _smooth_l1,
    "cosine": _cosine,
}
"""For each token, from predictions and targets in float32, and the beta of smooth L1."""


def weighted_mean(error: Float[Tensor, "B K"], weight: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
    """Over the tokens of the batch, by weight; 0 where none has any, as in a piece of a step that weighs nothing."""
    total = weight.sum()
    return (error * weight).sum() / (total + (total == 0))
