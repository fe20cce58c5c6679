"""Which frames of a video make a clip: dense with a stride, dense over a span, or spread over the whole video.

Pure functions of the number of frames. `train` draws one clip, `views` gives the fixed clips of a test; both return
int64 frame indices (T per clip). A video that is too short repeats a late frame instead of being refused.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float64, Int64
from pydantic import Field

from tubelet.spec import OneOf, Spec


class Strided(Spec):
    """Every `stride`-th frame from a random start (VideoMAE pre-training, arXiv:2203.12602, section 4.1).

    As the authors' code does, the last frame of a video is never taken: a clip that would reach it stays on the frame
    before. Test clips as in `Span`.
    """

    kind: Literal["strided"] = "strided"
    stride: int = Field(default=4, ge=1, description="frames from one frame of the clip to the next")

    def train(self, total: int, frames: int, rng: np.random.Generator) -> Int64[np.ndarray, " T"]:
        room = total - frames * self.stride
        start = int(rng.integers(0, room + 1)) if room >= 0 else 0
        last = start + self.stride * max((total - 2 - start) // self.stride, 0)
        return np.minimum(start + self.stride * np.arange(frames, dtype=np.int64), last)

    def views(self, total: int, frames: int, clips: int) -> Int64[np.ndarray, "clips T"]:
        return _dense_views(total, frames, clips=clips, stride=self.stride)

    def span_frames(self, frames: int) -> int | None:
        """How many frames of a video a clip spans."""
        return frames * self.stride


class Span(Spec):
    """T frames evenly over `T * stride` frames, both ends included (VideoMAE fine-tuning, dense).

    The real step is `T * stride / (T - 1)` frames, a little more than `stride`, and the last frame of the video is
    never the end of the span: both as in the authors' code. Test clips (more than one) do step by `stride`, starting at
    places spread evenly over the video; a single one is the span in the middle, as VideoMAE V2 validates
    (arXiv:2303.16727). The authors divide by zero for one test clip.
    """

    kind: Literal["span"] = "span"
    stride: int = Field(default=4, ge=1, description="the span is frames * stride frames long")

    def train(self, total: int, frames: int, rng: np.random.Generator) -> Int64[np.ndarray, " T"]:
        span = frames * self.stride
        if total <= span:
            return self._short(total, frames)
        return self._ending_at(int(rng.integers(span, total)), frames)

    def views(self, total: int, frames: int, clips: int) -> Int64[np.ndarray, "clips T"]:
        if clips > 1:
            return _dense_views(total, frames, clips=clips, stride=self.stride)
        span = frames * self.stride
        one = self._short(total, frames) if total <= span else self._ending_at((span + total) // 2, frames)
        return one[None]

    def span_frames(self, frames: int) -> int | None:
        """How many frames of a video a clip spans."""
        return frames * self.stride

    def _ending_at(self, end: int, frames: int) -> Int64[np.ndarray, " T"]:
        start = end - frames * self.stride
        return np.asarray(np.linspace(start, end, num=frames).clip(start, end - 1), dtype=np.int64)

    def _short(self, total: int, frames: int) -> Int64[np.ndarray, " T"]:
        few = np.linspace(0, total, num=total // self.stride)
        padded = np.concatenate([few, np.full(frames - len(few), total)])
        return np.asarray(padded.clip(0, total - 1), dtype=np.int64)


class Segments(Spec):
    """One random frame from each of T equal segments (TSN, arXiv:1608.00859; VideoMAE on Something-Something V2).

    Equal to the authors' lists, with their quirks: in training segments have whole lengths, so up to T-1 frames at the
    end are never seen, and a video with fewer than T frames gives its first frame T times. `Uniform` has neither quirk.
    Test clips interleave: clip k takes the frame k/clips into each segment; a single one takes the middle
    (the authors' code hard-wires two).
    """

    kind: Literal["segments"] = "segments"

    def train(self, total: int, frames: int, rng: np.random.Generator) -> Int64[np.ndarray, " T"]:
        length = total // frames
        if length == 0:
            return np.zeros(frames, dtype=np.int64)
        return np.arange(frames, dtype=np.int64) * length + rng.integers(0, length, size=frames)

    def views(self, total: int, frames: int, clips: int) -> Int64[np.ndarray, "clips T"]:
        length = total / frames
        if clips == 1:
            return (length / 2 + length * np.arange(frames)).astype(np.int64)[None]
        offsets = [k * length / clips + length * np.arange(frames) for k in range(clips)]
        every = np.sort(np.stack(offsets).astype(np.int64), axis=None)
        return np.stack([every[k::clips] for k in range(clips)])

    def span_frames(self, frames: int) -> int | None:
        """None: a clip spreads over the whole video, whatever its length."""
        del frames
        return None


class Uniform(Spec):
    """One random frame from each of T equal segments that cover the whole video, however short it is.

    Our form of `Segments` for small sets whose meaning needs the whole clip: segments have real lengths, so the end is
    seen and a short video repeats frames evenly. Test clips: clip k looks (k + 1/2)/clips into every segment.
    """

    kind: Literal["uniform"] = "uniform"

    def train(self, total: int, frames: int, rng: np.random.Generator) -> Int64[np.ndarray, " T"]:
        return self._at(total, rng.random(frames))

    def views(self, total: int, frames: int, clips: int) -> Int64[np.ndarray, "clips T"]:
        return np.stack([self._at(total, np.full(frames, (k + 0.5) / clips)) for k in range(clips)])

    def span_frames(self, frames: int) -> int | None:
        """None: a clip spreads over the whole video, whatever its length."""
        del frames
        return None

    def _at(self, total: int, place: Float64[np.ndarray, " T"]) -> Int64[np.ndarray, " T"]:
        frames = len(place)
        return np.asarray(np.minimum((np.arange(frames) + place) * total / frames, total - 1), dtype=np.int64)


Sampler = Annotated[Strided | Span | Segments | Uniform, OneOf()]
"""Any sampler, read from data by its `kind`."""


def _dense_views(total: int, frames: int, *, clips: int, stride: int) -> Int64[np.ndarray, "clips T"]:
    """Clips of every `stride`-th frame, starts spread evenly; short videos repeat the last reachable frame."""
    reachable = np.arange(0, total, stride, dtype=np.int64)
    reachable = np.pad(reachable, (0, max(frames - len(reachable), 0)), mode="edge")
    room = len(reachable) - frames
    starts = [room // 2] if clips == 1 else [int(k * (room / (clips - 1))) for k in range(clips)]
    return np.stack([reachable[start : start + frames] for start in starts])
