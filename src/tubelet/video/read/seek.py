"""Wanted frames by starting at key frames: `fetch` leaves out what nothing needs, `fetch_all_between` decodes it all.

Both give the same pixels for a file that keeps what its packets promise, and raise `OutOfStep` for any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Int64

from tubelet.video.read.opened import Opened
from tubelet.video.read.packets import PacketIndex
from tubelet.video.read.references import unreferenced

Take = Callable[[int, Any], None]
"""Gets the number of a wanted frame and the frame; may get it again after an OutOfStep."""


class OutOfStep(Exception):  # noqa: N818
    """Decoding did not give the frames that the packets promised."""


def fetch(file: Opened, index: PacketIndex, wanted: Int64[np.ndarray, " K"], take: Take) -> None:
    """Decode what the `wanted` frames (ascending) need: packets that nothing refers to are not, nor is what follows
    the last wanted frame of a group. A decoder that says that a frame is damaged is out of step: what it makes up for
    lost parts may depend on the frames left out.
    """
    for start, group in groups(index, wanted):
        _fetch_group(file, index, start, group=group, take=take)


def _fetch_group(file: Opened, index: PacketIndex, start: int, *, group: list[int], take: Take) -> None:
    number_of = {int(index.times[number]): number for number in group}
    last = max(index.position[time] for time in number_of)
    promises = _Promises(number_of, float(index.key_times[start]) if start > 0 else -np.inf, take)
    is_spare = unreferenced(file.stream)
    for packet in _packets_from(file, index, start):
        file.clock.check()
        place = index.position.get(packet.pts)
        if place is None:
            raise OutOfStep
        if packet.pts in number_of or not is_spare(packet):
            promises.note(packet)
            promises.compare(packet.decode())
        if place >= last:
            break
    promises.compare(file.stream.decode(None))  # what the decoder still holds back
    promises.settle()


class _Promises:
    """What decoded packets promise, against the frames that come of them; those shown before `first_time`, the time of
    the key frame, do not count: they are decoded from references that were skipped.
    """

    def __init__(self, number_of: dict[int, int], first_time: float, take: Take) -> None:
        self._number_of, self._first_time, self._take = number_of, first_time, take
        self._promised: list[int] = []
        self._seen: list[int] = []

    def note(self, packet: Any) -> None:
        if not packet.is_discard and packet.pts >= self._first_time:
            self._promised.append(packet.pts)

    def compare(self, frames: list[Any]) -> None:
        for frame in frames:
            time = frame.pts
            if time is not None and time < self._first_time:
                continue
            if time is None or frame.is_corrupt:
                raise OutOfStep
            self._seen.append(time)
            if time in self._number_of:
                self._take(self._number_of[time], frame)

    def settle(self) -> None:
        if self._seen != sorted(self._promised):
            raise OutOfStep


def fetch_all_between(file: Opened, index: PacketIndex, wanted: Int64[np.ndarray, " K"], take: Take) -> None:
    """The plain form of `fetch`: decode every frame from a key frame to the last wanted one of its group."""
    for start, group in groups(index, wanted):
        ask = set(group)
        for number, frame in decode_from(file, index, start):
            if number in ask:
                take(number, frame)
                ask.remove(number)
            if not ask:
                break
        if ask:
            raise OutOfStep


def decode_from(file: Opened, index: PacketIndex, start: int) -> Iterator[tuple[int, Any]]:
    """Frames from a key frame on, with their numbers; OutOfStep as soon as one comes at an unexpected time."""
    first_time = index.key_times[start]
    number = index.first_frame(start)
    for packet in _packets_from(file, index, start):
        file.clock.check()
        for frame in packet.decode():
            if start > 0 and frame.pts is not None and frame.pts < first_time:
                continue  # shown before the key frame
            if number >= len(index.times) or frame.pts != index.times[number]:
                raise OutOfStep
            yield number, frame
            number += 1


def groups(index: PacketIndex, wanted: Int64[np.ndarray, " K"]) -> list[tuple[int, list[int]]]:
    """Wanted frames by the key frame that they are decoded from."""
    groups: dict[int, list[int]] = {}
    for number in wanted.tolist():
        groups.setdefault(index.start(number), []).append(number)
    return sorted(groups.items())


def _packets_from(file: Opened, index: PacketIndex, start: int) -> Iterator[Any]:
    """Packets from a key frame on. A seek that lands too late is replaced by reading from the start."""
    key_time, key_position = int(index.key_times[start]), int(index.key_positions[start])
    if start > 0 and "444" in (file.stream.codec_context.pix_fmt or ""):
        # Old x264 coded 4:4:4 its own way and says so in the first packet only, which the decoder must have seen.
        file.open()
        next(file.container.demux(file.stream)).decode()
    file.container.seek(key_time, stream=file.stream)
    packets = file.container.demux(file.stream)
    packet = next(packets, None)
    if packet is None or index.position.get(packet.pts, key_position + 1) > key_position:
        file.open()
        packets = file.container.demux(file.stream)
        packet = next(packets, None)
    while packet is not None and packet.pts != key_time:
        file.clock.check()
        packet = next(packets, None)
    if packet is None:
        raise OutOfStep
    yield packet
    yield from packets
