"""What is known of a file before its tensors are looked at."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tubelet.weights.tensors.options import SavedOptions
from tubelet.weights.tensors.slowfast_config import SlowFastConfig


@dataclass(frozen=True)
class Hints:
    """Facts about a checkpoint that its file may not hold: heads, the clip it was trained with, names of classes."""

    heads: int | None = None
    decoder_heads: int | None = None
    frames: int | None = None
    size: int | None = None
    names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Given:
    """What is known of a file besides its tensors; `tokens` is the length of a fixed position table saved in it."""

    file: Path
    hints: Hints = Hints()
    options: SavedOptions = field(default_factory=SavedOptions)
    tokens: int | None = None
    config: SlowFastConfig = field(default_factory=SlowFastConfig)
