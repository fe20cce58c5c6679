"""Features of a frozen teacher as targets: what a network that has learnt already sees in the hidden part."""

from __future__ import annotations

from typing import ClassVar, Literal

from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from tubelet.targets.base import Asks, NumbersTarget
from tubelet.targets.frozen import FrozenSpec, of_tokens


class Features(NumbersTarget, FrozenSpec):
    """A frozen teacher's features of each token, L2-normalised, by squared error (arXiv:2112.09133, section 3.2).

    The teacher is a video model that tubelet reads, with a token for each of ours, or an image ViT of Hugging Face,
    which sees one frame of each tubelet, or all of them and gives their mean. The first frame is the one that `Hog`
    describes by default, so both say something of the same picture; "all" costs as many passes as a tubelet has frames.
    """

    asks: ClassVar[Asks] = "features"
    kind: Literal["features"] = "features"
    normalise: Literal["l2", "layer", "none"] = Field(
        default="l2", description="each feature over its length; or minus mean, over deviation; or as it is"
    )
    frames: Literal["first", "centre", "all"] = Field(
        default="first", description="of a tubelet, that an image teacher sees; the centre of 2 is the second"
    )
    size: int | None = Field(
        default=None,
        ge=1,
        description="pixels that frames are resized to for the teacher; null: an image teacher's patches fill the "
        "grid, a video teacher sees what it was trained with",
    )

    def select(self, answer: Float[Tensor, "B N D"], wanted: Int[Tensor, "B K"]) -> Float[Tensor, "B K D"]:
        """Normalised features of the wanted tokens from those of all, float32."""
        features = of_tokens(answer, wanted).float()
        if self.normalise == "l2":
            return F.normalize(features, dim=-1)
        return features if self.normalise == "none" else F.layer_norm(features, features.shape[-1:])
