"""Where clips lie in a video, and reading them one after the other: a long video becomes many clips.

Times are seconds of presentation after the first frame, so a variable frame rate is no special case.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8
from pydantic import Field
from torch import Tensor

from tubelet.spec import Spec
from tubelet.types import ClipShape
from tubelet.video.augment.augment import test_crops
from tubelet.video.read.file import BadVideo, open_video
from tubelet.video.read.frame_folder import FolderSweep
from tubelet.video.read.pixels import reading_short_side
from tubelet.video.read.sweep import Sweep
from tubelet.video.sample import Sampler, Uniform

Seconds = Annotated[float, Field(ge=0.001)]

CLOSE_SECONDS: Final = 1e-6
"""Times that differ by less are the same: containers round them."""


class Windows(Spec):
    """How a video is cut into windows; each gives one clip.

    Without `seconds` a window is what the model's sampler spans: the whole video for samplers that spread over it
    (uniform, segments), else frames * stride frames. With `seconds`, the clip's frames are spread evenly over the
    frames shown in [start, start + seconds). A window starts `step_seconds` after the one before; without it, where
    that one ends.
    """

    seconds: Seconds | None = Field(default=None, description="length of a window")
    step_seconds: Seconds | None = Field(default=None, description="from one start to the next")


@dataclass(frozen=True)
class WindowBounds:
    """A window of a video: its frames `first` to `stop` (not included), and its time."""

    first: int
    stop: int
    start_seconds: float
    end_seconds: float


@dataclass(frozen=True)
class Window:
    """A window that was read: its number in the video, its time, and the model's view of it."""

    clip: int
    start_seconds: float
    end_seconds: float
    video: UInt8[Tensor, "C T H W"]


def plan(
    video_seconds: Float64[np.ndarray, " N"], duration_seconds: float, sampler: Sampler, frames: int, windows: Windows
) -> list[WindowBounds]:
    """Windows of a video whose frames are shown at `video_seconds` and which ends at `duration_seconds`.

    The last one is shifted back to end with the video, so that the end is seen and no window is shorter than the
    others. A video shorter than a window is one window.
    ValueError for a step where the sampler spans the whole video and no length is given.
    """
    if windows.seconds is not None:
        return _by_seconds(video_seconds, duration_seconds, windows.seconds, windows.step_seconds or windows.seconds)
    length = sampler.span_frames(frames)
    if length is not None:
        return _by_frames(video_seconds, duration_seconds, length, windows.step_seconds)
    check_windows(windows, sampler)
    return [WindowBounds(0, len(video_seconds), 0.0, duration_seconds)]


def check_windows(windows: Windows, sampler: Sampler) -> None:
    """ValueError for windows that this sampler cannot give."""
    if windows.seconds is None and windows.step_seconds is not None and sampler.span_frames(1) is None:
        raise ValueError(
            f"a step of {windows.step_seconds:g} s needs the length of a window, too: the model looks at whole videos "
            f"({sampler.kind}); give both (--window and --step)"
        )


def frames_of(place: WindowBounds, sampler: Sampler, frames: int, windows: Windows) -> Int64[np.ndarray, " T"]:
    """The frames of a window's clip: what the sampler takes from a video that is just this window."""
    rule = sampler if windows.seconds is None else Uniform()
    inside: Int64[np.ndarray, " T"] = rule.views(place.stop - place.first, frames, 1)[0]
    return place.first + inside


def read_windows(path: Path, *, clip: ClipShape, sampler: Sampler, windows: Windows) -> Iterator[Window]:
    """The windows of a video in order, each as the model's test view: short side scaled to size, centre cropped.

    One pass over the file. Memory holds the frames of the windows that overlap, however long the video is.
    BadVideo where the file cannot be read to its last window, possibly after some windows.
    """
    with open_video(path) as video:
        last_frame_seconds = video.info.duration_seconds - float(video.seconds[-1])
        sweep = video.sweep(short_side=reading_short_side(clip.size))
        given = 0
        is_settled = False
        while not is_settled:
            seconds = video.seconds
            places = plan(seconds, float(seconds[-1]) + last_frame_seconds, sampler, clip.frames, windows)
            chosen = ((place, frames_of(place, sampler, clip.frames, windows)) for place in places)
            is_settled = True
            for place, pictures in _pictures(sweep, chosen, size=clip.size):
                if not np.array_equal(seconds, video.seconds):  # decoding showed that the packets' times are wrong
                    if given:
                        raise BadVideo(path, "frames come at other times than the file states; convert it first")
                    is_settled = False
                    break
                yield Window(given, place.start_seconds, place.end_seconds, pictures)
                given += 1


def _by_seconds(
    shown: Float64[np.ndarray, " N"], duration_seconds: float, length: float, step: float
) -> list[WindowBounds]:
    if duration_seconds <= length + CLOSE_SECONDS:
        return [WindowBounds(0, len(shown), 0.0, duration_seconds)]
    count = int((duration_seconds - length + CLOSE_SECONDS) // step) + 1
    starts = [number * step for number in range(count)]
    if shown[-1] > starts[-1] + length - CLOSE_SECONDS:
        starts.append(duration_seconds - length)
    first = np.searchsorted(shown, np.array(starts) + CLOSE_SECONDS, side="right") - 1
    stop = np.searchsorted(shown, np.array(starts) + length - CLOSE_SECONDS, side="left")
    return [
        WindowBounds(a, b, start, start + length)
        for a, b, start in zip(first.tolist(), stop.tolist(), starts, strict=True)
    ]


def _by_frames(
    shown: Float64[np.ndarray, " N"], duration_seconds: float, length: int, step_seconds: float | None
) -> list[WindowBounds]:
    total = len(shown)
    if total <= length:
        return [WindowBounds(0, total, 0.0, duration_seconds)]
    if step_seconds is None:
        starts = np.arange(0, total - length + 1, length)
    else:
        wanted = np.arange(0.0, float(shown[-1]) + CLOSE_SECONDS, step_seconds)
        starts = np.unique(np.searchsorted(shown, wanted - CLOSE_SECONDS))
        starts = starts[starts + length <= total]
    if starts[-1] + length < total:
        starts = np.append(starts, total - length)
    ends = [*shown.tolist(), duration_seconds]
    return [WindowBounds(start, start + length, ends[start], ends[start + length]) for start in starts.tolist()]


def _pictures(
    sweep: Sweep | FolderSweep, chosen: Iterator[tuple[WindowBounds, Int64[np.ndarray, " T"]]], *, size: int
) -> Iterator[tuple[WindowBounds, UInt8[Tensor, "C T size size"]]]:
    """Windows with their pictures. Each frame is asked for once, in ascending order, and kept while it is needed.

    Whatever later windows need from before the end of this one is read along with it: the file is never read back.
    """
    kept: dict[int, UInt8[Tensor, "C size size"]] = {}
    ahead: deque[tuple[WindowBounds, Int64[np.ndarray, " T"]]] = deque()
    horizon = -1
    while True:
        current = ahead.popleft() if ahead else next(chosen, None)
        if current is None:
            return
        place, wanted = current
        new_horizon = max(horizon, int(wanted.max()))
        while (ahead[-1][0] if ahead else place).first <= new_horizon and (later := next(chosen, None)) is not None:
            ahead.append(later)
        needed = np.unique(np.concatenate([wanted, *(frames for _, frames in ahead)]))
        kept = {number: kept[number] for number in kept if number >= needed[0]}
        kept |= _read(sweep, needed[(needed > horizon) & (needed <= new_horizon)], size=size)
        horizon = new_horizon
        yield place, torch.stack([kept[number] for number in wanted.tolist()], dim=1)


def _read(
    sweep: Sweep | FolderSweep, numbers: Int64[np.ndarray, " K"], *, size: int
) -> dict[int, UInt8[Tensor, "C size size"]]:
    if len(numbers) == 0:
        return {}
    frames = sweep.frames(numbers)
    return dict(zip(numbers.tolist(), test_crops(frames, size, 1)[0].unbind(1), strict=True))
