"""A share of places, drawn at random: what rules of masks and of decoding are made of."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from jaxtyping import Bool
from pydantic import Field

Ratio = Annotated[float, Field(gt=0.0, lt=1.0, description="share of the tokens that is hidden from the encoder")]


def pick(
    places: int,
    rng: np.random.Generator,
    *,
    ratio: float,
    name: str,
    count: int | None = None,
    verb: Literal["hides", "leaves out"] = "hides",
) -> Bool[np.ndarray, " places"]:
    """int(ratio * places) of them True, or `count`, at random. ValueError, of the rule `name`, for none and for all."""
    count = int(ratio * places) if count is None else count
    if not 0 < count < places:
        what = "nothing" if count == 0 else "everything"
        raise ValueError(f"{name}: ratio {ratio} of {places} places {verb} {what}; choose another ratio")
    chosen = np.zeros(places, dtype=np.bool_)
    chosen[rng.permutation(places)[:count]] = True
    return chosen
