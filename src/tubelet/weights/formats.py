"""Every format that models are read from, in the order in which a path is looked at.

A new one is a file with the two functions of a `Format`, and a line in `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tubelet.weights import ours
from tubelet.weights.checkpoint import Weights
from tubelet.weights.huggingface import folder as huggingface
from tubelet.weights.huggingface import image_vit
from tubelet.weights.slowfast import files as slowfast
from tubelet.weights.tensors.files import OpenedWeights
from tubelet.weights.videomae import files as videomae


@dataclass(frozen=True)
class Format:
    """A form in which models lie on a disk.

    `matches` looks at names and never raises. `read` gives a `Checkpoint` where the file says what model it is of, else
    an `Undescribed`; ValueError in one line, which names the file, where it is damaged or says what tubelet cannot
    build.
    """

    matches: Callable[[OpenedWeights], bool]
    read: Callable[[OpenedWeights], Weights]


FORMATS: Final[dict[str, Format]] = {
    "Hugging Face VideoMAE": Format(huggingface.matches, huggingface.read),
    "Hugging Face image model": Format(image_vit.matches, image_vit.read),
    "tubelet": Format(ours.matches, ours.read),
    "SlowFast": Format(slowfast.matches, slowfast.read),
    "VideoMAE": Format(videomae.matches, videomae.read),
}
