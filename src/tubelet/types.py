"""What flows through Tubelet.

Shape letters: B batch, C channels, T H W frames and pixels, t h w token grid, N = t*h*w tokens,
V tokens the encoder sees, K tokens the decoder predicts, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from pydantic import Field
from torch import Tensor

from tubelet.spec import Spec


class Grid(NamedTuple):
    """Token grid: how many cubes along time, height and width."""

    t: int
    h: int
    w: int

    @property
    def tokens(self) -> int:
        return self.t * self.h * self.w


class Cube(NamedTuple):
    """Size of one token in the video: frames, and pixels down and across."""

    frames: int
    height: int
    width: int


class ClipShape(Spec):
    """Size of a clip as the model sees it: `frames` square frames of `size` pixels."""

    frames: int = Field(default=16, ge=1)
    size: int = Field(default=224, ge=1)

    def words(self) -> str:
        """For a message: `16 frames of 224 x 224`."""
        return f"{self.frames} frames of {self.size} x {self.size}"

    def grid(self, cube: Cube) -> Grid:
        """Token grid for a cube; ValueError where the cube does not divide the clip."""
        if self.frames % cube.frames:
            raise ValueError(f"clip.frames {self.frames} is not a multiple of the tubelet {cube.frames}")
        for pixels in (cube.height, cube.width):
            if self.size % pixels:
                raise ValueError(f"clip.size {self.size} is not a multiple of the patch {pixels}")
        return Grid(self.frames // cube.frames, self.size // cube.height, self.size // cube.width)


@dataclass(frozen=True)
class Clips:
    """A batch of clips as bytes. An image is T = 1. `index` is the place of each in its manifest."""

    video: UInt8[Tensor, "B C T H W"]
    index: Int[Tensor, " B"]

    def __post_init__(self) -> None:
        if self.video.dtype != torch.uint8 or self.video.ndim != 5:
            raise ValueError(f"clips are uint8 [B,C,T,H,W], got {self.video.dtype} {tuple(self.video.shape)}")
        if self.index.shape != self.video.shape[:1]:
            raise ValueError(f"one index per clip: {tuple(self.index.shape)} for {self.video.shape[0]} clips")

    def to(self, device: torch.device) -> Clips:
        return Clips(self.video.to(device, non_blocking=True), self.index.to(device, non_blocking=True))

    def part(self, rows: slice) -> Clips:
        return Clips(self.video[rows], self.index[rows])

    def pin_memory(self) -> Clips:
        return Clips(self.video.pin_memory(), self.index.pin_memory())


@dataclass(frozen=True)
class Mask:
    """Which tokens are hidden from the encoder, which the decoder predicts and which enter the loss, bool [B,t,h,w].

    True in `hidden` means the encoder must not see the token; this is the only polarity. `scored` is
    `hidden & decoded` unless it is given; only decoded tokens can be scored.
    """

    hidden: Bool[Tensor, "B t h w"]
    decoded: Bool[Tensor, "B t h w"]
    scored: Bool[Tensor, "B t h w"] = None  # type: ignore[assignment]  # filled in at once

    def __post_init__(self) -> None:
        if self.hidden.shape != self.decoded.shape or self.hidden.ndim != 4:
            raise ValueError(f"hidden {tuple(self.hidden.shape)} and decoded {tuple(self.decoded.shape)} differ")
        if self.scored is None:
            object.__setattr__(self, "scored", self.hidden & self.decoded)
        elif self.scored.shape != self.decoded.shape:
            raise ValueError(f"scored {tuple(self.scored.shape)} and decoded {tuple(self.decoded.shape)} differ")

    @staticmethod
    def unstacked(stacked: Bool[Tensor, "B 3 t h w"]) -> Mask:
        """The other way round than `stacked`."""
        return Mask(*stacked.unbind(1))

    def stacked(self) -> Bool[Tensor, "B 3 t h w"]:
        """Hidden, decoded and scored in one tensor."""
        return torch.stack([self.hidden, self.decoded, self.scored], 1)

    def to(self, device: torch.device) -> Mask:
        return Mask(self.hidden.to(device), self.decoded.to(device), self.scored.to(device))

    def split(self) -> Split:
        """Index form, raster order. Decoded tokens are padded with weight 0 to the most that a clip has.

        Where clips show the encoder another number of tokens each, `seen` is empty.
        """
        hidden = self.hidden.flatten(1)
        decoded = self.decoded.flatten(1)
        seen_count = (~hidden).sum(1)
        is_even = bool((seen_count == seen_count[0]).all())
        wanted_count = int(decoded.sum(1).max())
        seen = torch.argsort(hidden.int(), dim=1, stable=True)[:, : int(seen_count[0]) if is_even else 0]
        wanted = torch.argsort((~decoded).int(), dim=1, stable=True)[:, :wanted_count]
        weight = (self.scored & self.decoded).flatten(1).gather(1, wanted).float()
        return Split(seen, wanted, weight, self.hidden.contiguous())


@dataclass(frozen=True)
class Split:
    """Index form of a Mask: int64 token indices in raster order (t, h, w), and the loss weight of each wanted one.

    Methods that drop hidden tokens read `seen`, which is empty (V = 0) where clips show another number of tokens each;
    methods that replace them read `hidden`.
    """

    seen: Int[Tensor, "B V"]
    wanted: Int[Tensor, "B K"]
    weight: Float[Tensor, "B K"]
    hidden: Bool[Tensor, "B t h w"] | None = None

    def __post_init__(self) -> None:
        if self.wanted.shape != self.weight.shape:
            raise ValueError(f"wanted {tuple(self.wanted.shape)} and weight {tuple(self.weight.shape)} differ")

    def to(self, device: torch.device) -> Split:
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def part(self, rows: slice) -> Split:
        return self._each(lambda tensor: tensor[rows])

    def pin_memory(self) -> Split:
        return self._each(Tensor.pin_memory)

    def tensors(self) -> tuple[Tensor, ...]:
        """All of them, in the order of the fields."""
        always = (self.seen, self.wanted, self.weight)
        return always if self.hidden is None else (*always, self.hidden)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Split:
        return Split(*map(change, self.tensors()))


@dataclass(frozen=True)
class Batch:
    """Streams of clips by name ("video", "image"), their splits in pre-training, their labels in fine-tuning.

    `labels` is int64 [B] class indices, None where there are none.
    """

    clips: dict[str, Clips]
    splits: dict[str, Split] = field(default_factory=dict)
    labels: Int[Tensor, " B"] | None = None

    @property
    def size(self) -> int:
        """Clips of the largest stream."""
        return max(len(stream.index) for stream in self.clips.values())

    def to(self, device: torch.device) -> Batch:
        return Batch(
            {name: clips.to(device) for name, clips in self.clips.items()},
            {name: split.to(device) for name, split in self.splits.items()},
            None if self.labels is None else self.labels.to(device, non_blocking=True),
        )

    def part(self, rows: slice) -> Batch:
        """The same rows of every stream: a micro-batch."""
        return Batch(
            {name: clips.part(rows) for name, clips in self.clips.items()},
            {name: split.part(rows) for name, split in self.splits.items()},
            None if self.labels is None else self.labels[rows],
        )

    def pin_memory(self) -> Batch:
        return replace(
            self,
            clips={name: clips.pin_memory() for name, clips in self.clips.items()},
            splits={name: split.pin_memory() for name, split in self.splits.items()},
            labels=None if self.labels is None else self.labels.pin_memory(),
        )


@dataclass(frozen=True)
class Output:
    """What a method returns: the mean loss to follow, and detached scalars to log. The host has read none of it."""

    loss: Float[Tensor, ""]
    metrics: dict[str, Tensor] = field(default_factory=dict)
