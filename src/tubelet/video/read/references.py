"""Which packets no other frame is decoded from: they can be left out unless their own frame is wanted.

Only for H.264, where each piece of a picture says it itself (`nal_ref_idc`, ITU-T H.264, 7.4.1): B frames mostly,
half of the frames of a file by x264. Other codecs need more than a look at a packet; there the answer is always no.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

_SLICE: Final = 1
_HARMLESS: Final = frozenset({6, 9, 12})  # supplemental information, access unit delimiter, filler
_START: Final = b"\x00\x00\x01"
_HEADER_BYTES: Final = 5  # before the first parameter set of an avcC record

IsUnreferenced = Callable[[Any], bool]
"""Takes a PyAV packet of the stream."""


def unreferenced(stream: Any) -> IsUnreferenced:
    """The test for packets of an open PyAV video stream."""
    if stream.codec_context.codec.canonical_name != "h264":
        return _never
    extradata = stream.codec_context.extradata or b""
    if len(extradata) > _HEADER_BYTES and extradata[0] == 1:
        length_bytes = (extradata[4] & 3) + 1
        return lambda packet: _only_spare_slices(_sized_units(memoryview(packet), length_bytes))
    return lambda packet: _only_spare_slices(_marked_units(bytes(packet)))


def _never(packet: Any) -> bool:
    del packet
    return False


def _only_spare_slices(headers: list[int]) -> bool:
    """Whether units with these first bytes are one or more slices that nothing refers to, and nothing else."""
    found = False
    for header in headers:
        kind = header & 31
        if kind == _SLICE and not header & 0x60:
            found = True
        elif kind not in _HARMLESS:
            return False
    return found


def _sized_units(data: memoryview, length_bytes: int) -> list[int]:
    """First bytes of units that carry their length; one that does not fit into the packet counts as 0 (unknown)."""
    headers, place, end = [], 0, len(data)
    while place + length_bytes < end:
        size = int.from_bytes(data[place : place + length_bytes], "big")
        place += length_bytes
        headers.append(data[place] if 0 < size <= end - place else 0)
        place += size
    return headers


def _marked_units(data: bytes) -> list[int]:
    """First bytes of units between start codes."""
    headers, place = [], data.find(_START)
    while 0 <= place < len(data) - 3:
        headers.append(data[place + 3])
        place = data.find(_START, place + 3)
    return headers
