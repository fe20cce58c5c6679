"""What a long piece of work tells whoever looks on. The command line draws it, nothing below prints."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """Looks on while clips are worked through; a call must be quick, for the work waits for it."""

    def begin(self, what: str, total: int, unit: str) -> None:
        """Work named `what` starts: `total` things named `unit` (such as "videos") are to be done."""

    def advance(self, done: int, clips: int) -> None:
        """`done` more of the total are finished, and `clips` more clips went through the model."""

    def say(self, line: str) -> None:
        """Something a person should know: a skipped file, work found finished from before."""

    def end(self) -> None:
        """The work that `begin` named is over, by its last thing, an error or a signal."""


class Quiet:
    """Looks away."""

    def begin(self, what: str, total: int, unit: str) -> None:
        """Ignore."""

    def advance(self, done: int, clips: int) -> None:
        """Ignore."""

    def say(self, line: str) -> None:
        """Ignore."""

    def end(self) -> None:
        """Ignore."""
