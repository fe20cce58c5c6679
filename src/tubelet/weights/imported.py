"""The name that `Checkpoint` had, for rooms that still say it."""

from tubelet.weights.checkpoint import Checkpoint as Imported
from tubelet.weights.checkpoint import encoder_state

__all__ = ["Imported", "encoder_state"]
