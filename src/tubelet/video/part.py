"""A piece of a long video that counts as a video of its own."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, inf


@dataclass(frozen=True)
class Part:
    """Frames shown from `start_seconds` on and before `end_seconds`, both counted from the first frame of the video.

    `number` counts the pieces of a video from 1; the last one ends with the video (`end_seconds` is infinite).
    """

    number: int
    start_seconds: float
    end_seconds: float

    def __str__(self) -> str:
        return f"#{self.number:04d}"

    @property
    def words(self) -> str:
        """Which part of the video it is."""
        end = "to the end" if self.end_seconds == inf else f"to {self.end_seconds:g} s"
        return f"from {self.start_seconds:g} s {end}"


def parts_of(seconds: float, each_seconds: float) -> tuple[Part | None, ...]:
    """Pieces of `each_seconds` of a video of `seconds`; (None,), the whole, where it is not long enough for two.

    What is left at the end becomes a piece of its own from half of that length on, else it goes to the piece before.
    """
    count = floor(seconds / each_seconds + 0.5)
    if count < 2:
        return (None,)
    return tuple(
        Part(
            number=number + 1,
            start_seconds=number * each_seconds,
            end_seconds=inf if number == count - 1 else (number + 1) * each_seconds,
        )
        for number in range(count)
    )
