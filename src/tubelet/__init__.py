"""Tubelet: masked video pre-training, from a folder of videos to an encoder, a classifier, embeddings.

model = tubelet.load("runs/pre")
clip = tubelet.read_clip("video.mp4", frames=model.clip.frames, size=model.clip.size)
tokens, vector = model.encode(clip)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tubelet import models
    from tubelet.inference.clips import read_clip
    from tubelet.inference.model import Encoded, Model, Scores, load

__version__ = "0.1.0"
__all__ = ["Encoded", "Model", "Scores", "__version__", "load", "models", "read_clip"]


def __getattr__(name: str) -> Any:
    """Import what is heavy when it is first used: `import tubelet` alone does not load torch."""
    if name == "models":
        return import_module("tubelet.models")
    if name == "read_clip":
        from tubelet.inference.clips import read_clip

        return read_clip
    if name in __all__:
        from tubelet.inference import model

        return getattr(model, name)
    raise AttributeError(f"module 'tubelet' has no attribute {name!r}")
