"""Tiny folders of numbered images for tests, encoded with PyAV: every image carries its number as brightness."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from PIL import Image
from video_files import level

CODECS: Final = {".jpg": ("mjpeg", "yuvj420p"), ".png": ("png", "rgb24"), ".bmp": ("bmp", "bgr24")}


def picture(index: int, size: tuple[int, int] = (64, 48)) -> Any:
    """As `video_files.write_video` draws it, with a ramp from top to bottom: [H,W,3]."""
    width, height = size
    drawn = np.full((height, width, 3), level(index), dtype=np.int64)
    drawn[:, : width // 2] -= 20
    return (drawn + np.arange(height)[:, None, None] // 4 - height // 8).astype(np.uint8)


def encoded(drawn: Any, extension: str = ".png") -> bytes:
    """The bytes of an image file."""
    codec, form = CODECS[extension]
    encoder: Any = av.CodecContext.create(codec, "w")
    encoder.height, encoder.width = drawn.shape[:2]
    encoder.pix_fmt, encoder.time_base = form, Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(drawn, format="rgb24").reformat(format=form)
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def write_images(
    folder: Path, count: int = 24, *, first: int = 1, name: str = "img_{:05d}.png", size: tuple[int, int] = (64, 48)
) -> Path:
    """Images number `first` to `first + count - 1`; number n shows level(n - first)."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        file = folder / name.format(first + index)
        file.write_bytes(encoded(picture(index, size), file.suffix))
    return folder


def as_video(folder: Path, path: Path) -> Path:
    """The very image files of a folder, in the order of their names, as the frames of a video at 30 a second."""
    files = sorted(folder.iterdir())
    with av.open(str(path), "w") as container:
        codec, form = CODECS[files[0].suffix]
        stream: Any = container.add_stream(codec, rate=30)
        with av.open(str(files[0])) as one:
            stream.width, stream.height = one.streams.video[0].width, one.streams.video[0].height
        stream.pix_fmt = form
        for number, file in enumerate(files):
            packet = av.Packet(file.read_bytes())
            packet.stream, packet.time_base = stream, Fraction(1, 30)
            packet.pts = packet.dts = number
            packet.is_keyframe = True
            container.mux(packet)
    return path


def turned_jpeg(drawn: Any, orientation: int) -> bytes:
    """A JPEG whose EXIF says how it must be turned."""
    entry = b"\x01\x12\x00\x03\x00\x00\x00\x01" + orientation.to_bytes(2, "big") + b"\x00\x00"
    exif = b"Exif\x00\x00" + b"MM\x00\x2a\x00\x00\x00\x08" + b"\x00\x01" + entry + b"\x00\x00\x00\x00"
    plain = encoded(drawn, ".jpg")
    return plain[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + plain[2:]


def write_image_set(folder: Path, *, each: int = 4, size: tuple[int, int] = (52, 40)) -> Path:
    """ImageNet's layout, CLASS/CLASS_17.JPEG, whose numbers have holes: a dark class and a bright one."""
    rng = np.random.default_rng(each)
    width, height = size
    for name, base in (("n01440764", 50), ("n02102040", 200)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for place in range(each):
            drawn = (base + rng.integers(-40, 40, (height, width, 3))).astype(np.uint8)
            Image.fromarray(drawn).save(folder / name / f"{name}_{10 + 37 * place}.JPEG")
    return folder
