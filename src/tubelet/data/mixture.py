"""How several sources share an epoch: which of their videos it takes, and how often (docs/mixed-data.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import Final

import numpy as np
from jaxtyping import Int64

from tubelet.rng import generator

_TURNS: Final = 2  # fifth name of the draw, as 1 is for the order of an epoch


@dataclass(frozen=True)
class Share:
    """A source: its name, how many videos it has, and how often each of them comes in an epoch.

    ValueError where that leaves no video of it in an epoch.
    """

    name: str
    videos: int
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.weight > 0 or self.slots == 0:
            raise ValueError(
                f"source {self.name}: weight {self.weight:g} of {self.videos} videos leaves none of them in an epoch; "
                "raise the weight or leave the source out"
            )

    @property
    def slots(self) -> int:
        """Videos that an epoch takes from it, the same number each epoch."""
        return floor(self.weight * self.videos + 0.5)

    @property
    def places(self) -> int:
        """Videos times how often one comes in an epoch at most."""
        return self.videos * ceil(self.weight)


class Mixture:
    """Gives numbers to all that can come in an epoch, and says which of them do come.

    A place stands for a video and its first, second, ... coming in an epoch. Places are numbered source by source, in a
    source first comings first: what is drawn for a clip is named by its place, so a second coming is another clip. For
    sources of weight 1 places are the videos one after the other. The whole part of a weight comes in every epoch. Of
    the rest the sources' videos take turns, in an order that `seed` gives: after any number of epochs all videos of a
    source have come equally often, but for one time.
    """

    def __init__(self, shares: Sequence[Share], *, seed: int) -> None:
        self.shares, self.seed = tuple(shares), seed
        self._starts = np.cumsum([0, *(share.places for share in self.shares)])

    def __len__(self) -> int:
        """Videos of an epoch."""
        return sum(share.slots for share in self.shares)

    def places(self, epoch: int) -> Int64[np.ndarray, " slots"]:
        """The places of an epoch, ascending within each part of a source; another module shuffles them."""
        parts = [start + self._of_source(number, epoch) for number, start in enumerate(self._starts[:-1])]
        return np.concatenate(parts).astype(np.int64)

    def find(self, place: int) -> tuple[int, int]:
        """The source of a place, and the video within the source."""
        source = int(np.searchsorted(self._starts, place, side="right")) - 1
        return source, int(place - self._starts[source]) % self.shares[source].videos

    def source_of(self, place: int) -> str:
        """The name of the source of a place."""
        return self.shares[self.find(place)[0]].name

    def lines(self) -> list[str]:
        """What each source gives to an epoch, a line each, for who looks on."""
        total = len(self)
        return [
            f"source {share.name}: {share.videos} videos, weight {share.weight:g}: {share.slots} an epoch, "
            f"{share.slots / total:.1%} of it"
            for share in self.shares
        ]

    def _of_source(self, number: int, epoch: int) -> Int64[np.ndarray, " slots"]:
        share = self.shares[number]
        always = share.videos * floor(share.weight)
        some = share.slots - always
        if some <= 0:
            return np.arange(share.slots)
        turns = generator(self.seed, number, 0, 0, _TURNS).permutation(share.videos)
        chosen = turns[(np.arange(some) + epoch * some) % share.videos]
        return np.concatenate([np.arange(always), always + np.sort(chosen)])
