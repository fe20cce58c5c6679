"""Videos of another size: what one network sees well, another may take smaller."""

from __future__ import annotations

from typing import Literal

from einops import rearrange
from jaxtyping import Num
from torch import Tensor
from torch.nn import functional as F


def resized(
    video: Num[Tensor, "B C T H W"], size: int, *, how: Literal["bilinear", "bicubic"] = "bilinear"
) -> Num[Tensor, "B C T _ _"]:
    """The same clips with frames of `size` x `size` pixels, antialiased: float in 0..255.

    As they came where they have that size.
    """
    if video.shape[-2:] == (size, size):
        return video
    frames = rearrange(video.float(), "B C T H W -> (B T) C H W")
    frames = F.interpolate(frames, (size, size), mode=how, antialias=True)
    if how == "bicubic":
        frames = frames.clamp(0.0, 255.0)  # it overshoots at edges
    return rearrange(frames, "(B T) C H W -> B C T H W", B=len(video))
