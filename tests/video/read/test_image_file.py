"""Image files as videos of one frame: upright RGB of whatever Pillow reads, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import encoded, picture
from PIL import Image

from tubelet.video.read.decoders import Reading
from tubelet.video.read.errors import BadVideo
from tubelet.video.read.file import VideoFile, frames, open_video, probe
from tubelet.video.read.image_file import ImageFile
from tubelet.video.read.limits import Limits


def noise(height: int = 40, width: int = 52) -> Any:
    """Smooth enough for JPEG, different in every corner."""
    rng = np.random.default_rng(3)
    small = Image.fromarray(rng.integers(0, 255, (5, 7, 3), dtype=np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def saved(path: Path, image: Image.Image, **how: Any) -> Path:
    image.save(path, **how)
    return path


@pytest.mark.parametrize("ending", ["jpg", "JPEG", "png", "webp", "bmp", "tif", "tiff"])
def test_every_kind_is_what_pillow_reads(ending: str, tmp_path: Path) -> None:
    path = saved(tmp_path / f"a.{ending}", Image.fromarray(noise()))
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    with open_video(path) as video:
        assert isinstance(video, ImageFile)
        assert len(video) == video.check() == 1
        found = video.frames([0, 0])
        assert (video.info.frames, video.info.width, video.info.height) == (1, 52, 40)
        assert video.seconds.tolist() == [0.0]
        assert video.info.duration_seconds == video.info.fps == 0.0
    assert found.shape == (2, 40, 52, 3)
    assert (found == expected).all()


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_and_mirrors(orientation: int, ending: str, tmp_path: Path) -> None:
    """The eight orientations of EXIF 2.3, table 6, undone by hand, and once: Pillow undoes those of TIFF itself."""
    upright = noise()
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.swapaxes(0, 1),
        6: np.rot90(upright), 7: upright[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / f"a.{ending}", Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    assert (frames(path, [0])[0] == upright).all()
    info = probe(path)
    assert (info.width, info.height) == (52, 40)
    assert frames(path, [0], short_side=20).shape == (1, 20, 26, 3)


def test_nonsense_in_exif_is_no_reason_to_turn(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    path = saved(tmp_path / "a.png", Image.fromarray(noise()), exif=exif)
    assert (frames(path, [0])[0] == noise()).all()


def odd_images() -> dict[str, tuple[Image.Image, str, Any]]:
    """By name: an image, the ending it is saved with, and the RGB it must become."""
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    deep = ramp.astype(np.uint16) * 257
    grey = np.stack([ramp] * 3, -1)
    alpha = np.zeros((16, 16, 4), np.uint8)
    alpha[..., 0], alpha[:8, :, 3] = 90, 255
    on_white = np.full((16, 16, 3), 255, np.uint8)
    on_white[:8] = (90, 0, 0)
    indexed = Image.fromarray(ramp % 4).convert("P")
    indexed.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    colours = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90], [100, 110, 120]], np.uint8)[ramp % 4]
    bits = Image.fromarray(((ramp % 2) * 255).astype(np.uint8)).convert("1")
    cmyk = Image.fromarray(np.dstack([255 - grey, np.zeros_like(ramp)]), "CMYK")
    return {
        "grey": (Image.fromarray(ramp), "png", grey),
        "bits": (bits, "png", np.stack([(ramp % 2) * 255] * 3, -1)),
        "grey of 16 bits": (Image.fromarray(deep), "png", grey),
        "grey of 16 bits, tiff": (Image.fromarray(deep), "tif", grey),
        "palette": (indexed, "png", colours),
        "alpha": (Image.fromarray(alpha), "png", on_white),
        "alpha, webp": (Image.fromarray(alpha), "webp", on_white),
        "grey and alpha": (
            Image.fromarray(alpha[..., [0, 3]], "LA"), "png", np.where(alpha[..., 3:] > 0, 90, 255).repeat(3, 2),
        ),
        "cmyk": (cmyk, "tif", grey),
    }  # fmt: skip


@pytest.mark.parametrize("name", odd_images())
def test_odd_images_become_rgb(name: str, tmp_path: Path) -> None:
    image, ending, expected = odd_images()[name]
    path = saved(tmp_path / f"a.{ending}", image, **({"lossless": True} if ending == "webp" else {}))
    assert (frames(path, [0])[0] == expected).all()
    assert frames(path, [0], short_side=8).shape == (1, 8, 8, 3)


def test_a_cmyk_jpeg_is_not_a_negative(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", Image.fromarray(noise()).convert("CMYK"), quality=95)
    assert np.abs(frames(path, [0])[0].astype(int) - noise()).mean() < 4


def test_one_transparent_colour_of_a_palette_lies_on_white(tmp_path: Path) -> None:
    image = Image.fromarray((np.arange(64, dtype=np.uint8) % 2).reshape(8, 8)).convert("P")
    image.putpalette([0, 0, 0, 200, 0, 0])
    path = saved(tmp_path / "a.png", image, transparency=0)
    assert set(map(tuple, frames(path, [0])[0].reshape(-1, 3).tolist())) == {(255, 255, 255), (200, 0, 0)}


def test_large_ones_are_scaled_as_pillow_scales_them(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", Image.fromarray(noise(90, 120)), quality=90)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB").resize((80, 60), Image.Resampling.BILINEAR))
    assert (frames(path, [0], short_side=60)[0] == expected).all()
    assert frames(path, [0], short_side=200).shape == (1, 90, 120, 3)


def test_a_jpeg_that_becomes_much_smaller_is_decoded_small(tmp_path: Path) -> None:
    """Its numbers stay close to those of the whole image scaled down."""
    path = saved(tmp_path / "a.jpg", Image.fromarray(noise(720, 960)), quality=90)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB").resize((80, 60), Image.Resampling.BILINEAR), dtype=np.float64)
    off = np.abs(frames(path, [0], short_side=60)[0] - expected)
    assert 0 < off.mean() < 1
    assert off.max() < 12


def test_the_name_does_not_decide_what_it_is(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.JPEG", Image.fromarray(noise()), format="PNG")
    assert probe(path).codec == "png"


def test_animations_are_videos_and_other_pictures_their_first(tmp_path: Path) -> None:
    pictures = [Image.fromarray(np.full((16, 16, 3), level, np.uint8)) for level in (10, 90, 200)]
    still = saved(tmp_path / "still.webp", pictures[0], lossless=True)
    moving = saved(tmp_path / "moving.webp", pictures[0], save_all=True, append_images=pictures[1:], lossless=True)
    pages = saved(tmp_path / "pages.tif", pictures[0], save_all=True, append_images=pictures[1:])
    with open_video(still) as one, open_video(pages) as first:
        assert isinstance(one, ImageFile)
        assert len(first) == 1
        assert (first.frames([0]) == 10).all()
    with pytest.raises(BadVideo), open_video(moving) as video:  # this FFmpeg knows no moving WebP, and says so
        assert isinstance(video, VideoFile)


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    whole = encoded(picture(0, (256, 256)), ".jpg")
    texts = {
        "text.jpg": (b"not an image", "not an image"),
        "empty.png": (b"", "an empty file"),
        "half.jpg": (whole[: len(whole) // 2], "truncated"),
        "half.png": (encoded(noise(64, 64), ".png")[:900], "truncated|broken"),
        "movie.jpg": (b"\x00\x00\x00\x18ftypmp42" + bytes(200), "not an image"),
    }
    for name, (data, _) in texts.items():
        (folder / name).write_bytes(data)
    Image.fromarray(np.ones((4, 4), np.float32)).save(folder / "float.tif")
    return {name: (folder / name, why) for name, (_, why) in texts.items()} | {
        "float.tif": (folder / "float.tif", "32 bits"),
        "missing.png": (folder / "missing.png", "no such file"),
    }


@pytest.mark.parametrize(
    "name", ["text.jpg", "empty.png", "half.jpg", "half.png", "movie.jpg", "float.tif", "missing.png"]
)
def test_what_is_no_image_is_said_in_one_line(name: str, tmp_path: Path) -> None:
    path, why = bad_files(tmp_path)[name]
    with pytest.raises(BadVideo, match=why) as bad, Reading().open(path) as video:
        video.frames([0])
    assert len(str(bad.value).splitlines()) == 1
    assert str(bad.value).startswith(f"{path}: ")


def test_limits_hold_and_other_frames_are_not_there(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(noise()))
    with (
        pytest.raises(BadVideo, match="52x40 pixels; at most 100"),
        Reading(limits=Limits(pixels=100)).open(path) as video,
    ):
        video.frames([0])
    with open_video(path) as video:
        with pytest.raises(IndexError):
            video.frames([1])
        with pytest.raises(IndexError):
            video.frames([])
