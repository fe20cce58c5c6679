"""Leaving out what no wanted frame needs changes no pixel, and saves decoding."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from video_files import plainly, write_video

from tubelet.video.read import seek
from tubelet.video.read.errors import FFMPEG_ERRORS, BadVideo
from tubelet.video.read.limits import Limits
from tubelet.video.read.opened import Opened
from tubelet.video.read.packets import PacketIndex, packet_index
from tubelet.video.read.pixels import UprightRgb
from tubelet.video.read.references import unreferenced
from tubelet.video.read.seek import OutOfStep, fetch, fetch_all_between

X264 = {
    "plain": "scenecut=0:bframes=3:b-adapt=0:b-pyramid=none",
    "pyramid": "scenecut=0:bframes=3:b-adapt=0:b-pyramid=normal",
    "open": "open-gop=1:keyint=8:min-keyint=8:scenecut=0:bframes=3:b-adapt=0",
    "no b": "scenecut=0:bframes=0",
    "fields": "tff=1:bframes=2",
}
WANTED = [list(range(5, 40, 4)), [0], [39], [17, 18], list(range(40)), [3, 30]]


def picked(way: Any, path: Path, wanted: list[int]) -> np.ndarray:
    file = Opened(path, Limits())
    file.open()
    try:
        index = packet_index(file)
        assert index is not None
        rgb = UprightRgb((64, 48), wanted, short_side=None)
        way(file, index, np.array(wanted), rgb.put)
        return rgb.array
    finally:
        file.close()


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
@pytest.mark.parametrize("how", sorted(X264))
def test_the_lean_way_gives_the_pixels_of_the_plain_one(tmp_path: Path, name: str, how: str) -> None:
    path = write_video(tmp_path / name, 40, gop=12, b_frames=3, options={"x264-params": X264[how]})
    reference = plainly(path)
    for wanted in WANTED:
        lean, plain = (picked(way, path, wanted) for way in (fetch, fetch_all_between))
        assert np.array_equal(lean, plain)
        assert all(np.array_equal(one, reference[number]) for one, number in zip(lean, wanted, strict=True))


class Counted:
    """A packet that notes that it was decoded."""

    def __init__(self, packet: Any, decoded: list[int]) -> None:
        self.packet, self.decoded = packet, decoded
        self.pts, self.is_discard = packet.pts, packet.is_discard

    def decode(self) -> list[Any]:
        self.decoded.append(self.pts)
        return list(self.packet.decode())


def test_little_more_than_the_wanted_frames_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", 48, gop=12, b_frames=3, options={"x264-params": X264["plain"]})
    decoded: list[int] = []
    packets_from = seek._packets_from

    def counted(file: Opened, index: PacketIndex, start: int) -> Iterator[Counted]:
        return (Counted(packet, decoded) for packet in packets_from(file, index, start))

    def unwrapping(stream: Any) -> Any:
        is_spare = unreferenced(stream)
        return lambda counted: is_spare(counted.packet)

    monkeypatch.setattr(seek, "_packets_from", counted)
    monkeypatch.setattr(seek, "unreferenced", unwrapping)
    for way, most in ((fetch, 12), (fetch_all_between, 48)):
        decoded.clear()
        picked(way, path, list(range(0, 48, 4)))
        assert 12 <= len(decoded) <= most, way
    assert len(decoded) > 36


def test_a_decoder_that_reports_damage_is_out_of_step(tmp_path: Path) -> None:
    """What it makes up may depend on frames that the lean way leaves out: then nothing is left out."""
    path = write_video(tmp_path / "a.mp4", 40, gop=40, b_frames=3, options={"crf": "1"})
    good, rng = path.read_bytes(), np.random.default_rng(1)
    reported = 0
    for _ in range(40):
        data = bytearray(good)
        for place in rng.integers(len(data) // 4, len(data) * 3 // 4, size=3):
            data[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        damaged = [number for number, is_damaged in enumerate(damage_of(path)) if is_damaged]
        if damaged:
            reported += 1
            with pytest.raises(OutOfStep):
                picked(fetch, path, damaged)
    assert reported >= 5


def damage_of(path: Path) -> list[bool]:
    """For each frame whether the decoder reports damage; empty where it fails, or frames are lost."""
    file = Opened(path, Limits())
    try:
        found = [frame.is_corrupt for _, frame in file.decoded()]
    except (BadVideo, *FFMPEG_ERRORS):
        return []
    finally:
        file.close()
    return found if len(found) == 40 else []


def test_a_packet_that_is_not_in_the_index_is_out_of_step(tmp_path: Path) -> None:
    file = Opened(write_video(tmp_path / "a.mp4", 12), Limits())
    file.open()
    index = packet_index(file)
    assert index is not None
    del index.position[int(index.times[2])]
    with pytest.raises(OutOfStep):
        fetch(file, index, np.array([5]), lambda number, frame: None)
    file.close()


def stream(codec: str, extradata: bytes) -> Any:
    context = SimpleNamespace(codec=SimpleNamespace(canonical_name=codec), extradata=extradata)
    return SimpleNamespace(codec_context=context)


def sized(*units: bytes) -> bytes:
    return b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)


def marked(*units: bytes) -> bytes:
    return b"".join(b"\0\0\1" + unit for unit in units)


SPARE, USED, KEY = bytes([0x01, 9, 9]), bytes([0x41, 9, 9]), bytes([0x65, 9, 9])
SEI, PARAMETERS, DELIMITER = bytes([0x06, 5]), bytes([0x67, 5]), bytes([0x09, 0x10])


@pytest.mark.parametrize(
    ("units", "spare"),
    [
        ([SPARE], True),
        ([DELIMITER, SEI, SPARE, SPARE], True),
        ([USED], False),
        ([KEY], False),
        ([SPARE, USED], False),
        ([PARAMETERS, SPARE], False),
        ([SEI], False),
        ([], False),
    ],
)
@pytest.mark.parametrize("pack", [sized, marked])
def test_only_packets_of_slices_that_nothing_refers_to_may_go(units: list[bytes], spare: bool, pack: Any) -> None:
    extradata = bytes([1, 100, 0, 13, 0xFF, 0xE1]) if pack is sized else b"\0\0\0\1\x67"
    assert unreferenced(stream("h264", extradata))(pack(*units)) is spare


def test_packets_that_do_not_add_up_and_other_codecs_are_kept() -> None:
    is_spare = unreferenced(stream("h264", bytes([1, 100, 0, 13, 0xFF, 0xE1])))
    assert not is_spare(sized(SPARE) + b"\0\0\0\x7f\x01")
    assert not is_spare(b"\0\0\0\0\x01")
    assert not unreferenced(stream("hevc", b""))(sized(SPARE))
