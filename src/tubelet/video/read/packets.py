"""Which frames a file holds, and from which key frame each can be decoded: read from its packets, without decoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Int64

from tubelet.video.read.errors import BadVideo
from tubelet.video.read.opened import Opened

TIMED_FORMATS: Final = ("mov", "matroska", "mpegts", "flv")
"""Containers (first word of FFmpeg's name) that write a presentation time per packet. AVI and raw streams do not."""


@dataclass(frozen=True)
class PacketIndex:
    """Presentation times of all shown frames, and where decoding can start.

    `times` int64 [N] ascending, in the stream's time base: frame i of the video is shown at `times[i]`.
    `position` gives the place of each frame in decoding order. `key_times` and `key_positions` int64 [M] describe the
    key frames in decoding order; the first packet is always one of them.
    """

    times: Int64[np.ndarray, " N"]
    position: dict[int, int]
    key_times: Int64[np.ndarray, " M"]
    key_positions: Int64[np.ndarray, " M"]

    def start(self, frame: int) -> int:
        """The last key frame (its place among the key frames) from which `frame` decodes cleanly.

        It must not come after the frame, neither in the file nor on the screen: in an open GOP, frames shown before
        their key frame but stored after it need the key frame before that one.
        """
        time = int(self.times[frame])
        start = int(np.searchsorted(self.key_positions, self.position[time], side="right")) - 1
        while start > 0 and self.key_times[start] > time:
            start -= 1
        return max(start, 0)

    def first_frame(self, start: int) -> int:
        """The frame that is shown first when decoding starts at key frame `start`."""
        return 0 if start == 0 else int(np.searchsorted(self.times, self.key_times[start]))


def packet_index(file: Opened) -> PacketIndex | None:
    """Index of an open file, None where the packets do not tell enough (then only decoding does).

    Packets that an edit list hides (flag "discard") are no frames of the video but may be needed to decode others.
    BadVideo where there are more packets than the file's limits allow, or no time is left.
    """
    if file.container.format.name.split(",")[0] not in TIMED_FORMATS:
        return None
    shown: list[int] = []
    position: dict[int, int] = {}
    keys: list[tuple[int, int]] = []
    for packet in file.container.demux(file.stream):
        file.clock.check()
        if packet.size == 0:
            continue
        time, place = packet.pts, len(position)
        if place >= file.limits.frames:
            raise BadVideo(file.path, f"more than {file.limits.frames} frames")
        if time is None or packet.is_corrupt or time in position:
            return None
        if packet.is_keyframe:
            keys.append((time, place))
        position[time] = place
        if not packet.is_discard:
            shown.append(time)
    if not shown or not keys or keys[0][1] != 0 or min(shown) < keys[0][0]:
        return None  # frames shown before the first key frame cannot be decoded: a decoder may drop them
    key_times, key_positions = np.array(keys, dtype=np.int64).T
    return PacketIndex(np.array(sorted(shown), dtype=np.int64), position, key_times, key_positions)
