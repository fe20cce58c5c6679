"""The list of targets: what `target=` may name in a recipe."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tubelet.spec import ByKind
from tubelet.targets.frame_pixels import FramePixels
from tubelet.targets.hog import Hog
from tubelet.targets.pixels import NormalisedPixels, Pixels

Target = Annotated[NormalisedPixels | Pixels | FramePixels | Hog, Field(discriminator="kind"), ByKind]
"""What a masked model predicts."""
