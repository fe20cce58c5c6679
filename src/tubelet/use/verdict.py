"""What a probe says of the validation videos, and by what it was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64


@dataclass(frozen=True)
class Verdict:
    """Scores of the classes, each row summing to 1; `facts` go into the record, `notes` are lines for a person."""

    scores: Float64[np.ndarray, "V C"]
    facts: Mapping[str, float | int | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
