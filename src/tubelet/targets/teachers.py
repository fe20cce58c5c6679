"""Frozen networks as targets ask them: a video goes in, what they say of it comes out.

Each takes uint8 [B,C,T,H,W], or float in 0..255, of any size, and resizes the frames to what its network sees.
"""

from __future__ import annotations

from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float, Int, Num
from torch import Tensor, nn

from tubelet.models.encoders import Encoder
from tubelet.models.tokenizers.dvae import DvaeEncoder
from tubelet.nn.pixels import Colours, resized
from tubelet.types import Grid

Which = Literal["first", "centre", "all"]


class VideoFeatures(nn.Module):
    """The tokens of a video encoder."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, video: Num[Tensor, "B C T H W"]) -> Float[Tensor, "B N D"]:
        """Of the whole grid, in raster order."""
        tokens: Tensor = self.encoder(resized(video, self.encoder.clip.size))
        return tokens


class FrameFeatures(nn.Module):
    """The patches of an image model on one frame of each tubelet, or their mean over all of its frames.

    `model` takes normalised pictures [P,3,size,size] and gives [P,M,D], whose last h * w are patches in raster order:
    class and register tokens come before them. `grid` is that of the tokens to make.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, *, grid: Grid, which: Which, size: int, colours: Colours) -> None:
        super().__init__()
        self.model, self.grid, self.which, self.size = model, grid, which, size
        for name, values in (("mean", colours.mean), ("std", colours.std)):
            self.register_buffer(name, 255.0 * torch.tensor(values).view(3, 1, 1))

    def forward(self, video: Num[Tensor, "B C T H W"]) -> Float[Tensor, "B N D"]:
        """Of the whole grid, in raster order."""
        frames = resized(frames_of(video, self.grid.t, self.which), self.size)
        pictures = rearrange(frames.float(), "B C T H W -> (B T) C H W")
        patches = self.model((pictures - self.mean) / self.std)[:, -self.grid.h * self.grid.w :]
        steps: Tensor = rearrange(patches, "(B t f) n D -> B t f n D", B=len(video), t=self.grid.t).mean(2)
        return steps.flatten(1, 2)


class FrameIds(nn.Module):
    """The ids that a tokenizer gives the first frame of each tubelet."""

    def __init__(self, encoder: DvaeEncoder, *, grid: Grid) -> None:
        super().__init__()
        self.encoder, self.grid = encoder, grid

    def forward(self, video: Num[Tensor, "B C T H W"]) -> Int[Tensor, "B N"]:
        """Of the whole grid, in raster order. Frames are resized, bicubic, so that each token has one id."""
        frames = frames_of(video, self.grid.t, "first")
        frames = resized(frames, self.grid.h * self.encoder.spec.patch, how="bicubic")  # BEVT: Lanczos
        ids = self.encoder.ids(rearrange(frames.float() / 255.0, "B C T H W -> (B T) C H W"))
        return rearrange(ids, "(B t) h w -> B (t h w)", B=len(video))


class StubTeacher(nn.Module):
    """Says the same of every clip: what a plan, which reads no weights, takes for a network."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, video: Num[Tensor, "B C T H W"]) -> Num[Tensor, "B ..."]:
        """`answer` for each clip."""
        return self.answer.to(video.device).expand(len(video), *self.answer.shape)


def frames_of(video: Num[Tensor, "B C T H W"], tubelets: int, which: Which) -> Num[Tensor, "B C _ H W"]:
    """The frames of each tubelet that count; a view. The centre of an even one is the frame after the middle."""
    if which == "all":
        return video
    frames = video.shape[2] // tubelets
    return video[:, :, (frames // 2 if which == "centre" else 0) :: frames]
