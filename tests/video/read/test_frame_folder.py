"""A folder of numbered images is a video, frame by frame, wherever a video file is one."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from image_files import as_video, encoded, picture, turned_jpeg, write_images
from video_files import numbers_of, write_video

from tubelet.video.lists.cut import length_of
from tubelet.video.prepare.transcode import Preparation, transcode
from tubelet.video.read.decoders import Reading
from tubelet.video.read.file import BadVideo, open_video, probe
from tubelet.video.read.frame_folder import FrameFolder
from tubelet.video.read.frame_range import FrameRange, frame_range_of, source_state
from tubelet.video.read.limits import Limits
from tubelet.video.read.numbered import is_frame_folder, numbering_of
from tubelet.video.read.part import VideoPart, open_part
from tubelet.video.work.scan import examine


@pytest.mark.parametrize("extension", [".png", ".jpg"])
@pytest.mark.parametrize("short_side", [None, 20])
def test_frames_are_those_of_a_video_of_the_same_images(tmp_path: Path, extension: str, short_side: int | None) -> None:
    folder = write_images(tmp_path / "a", 12, name="img_{:05d}" + extension)
    file = as_video(folder, tmp_path / "a.mov")
    wanted = [7, 0, 7, 11, 3]
    with open_video(folder) as images, open_video(file) as video:
        got, expected = images.frames(wanted, short_side=short_side), video.frames(wanted, short_side=short_side)
        assert np.array_equal(got, expected)
        assert np.allclose(images.seconds, video.seconds)
        assert len(images) == len(video) == images.check() == 12
        assert (images.info.width, images.info.height, images.info.fps) == (64, 48, 30.0)
        assert images.info.duration_seconds == pytest.approx(video.info.duration_seconds, abs=1e-3)
        sweep = images.sweep(short_side=short_side)
        assert np.array_equal(sweep.frames(np.array([2, 5])), video.frames([2, 5], short_side=short_side))


def test_frames_without_loss_are_the_pictures_themselves(tmp_path: Path) -> None:
    with open_video(write_images(tmp_path / "a", 5, name="{:03d}.bmp")) as images:
        assert np.array_equal(images.frames([4, 1]), np.stack([picture(4), picture(1)]))


def test_only_wanted_images_are_opened(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "a", 6)
    for number in (1, 2, 4, 5):
        (folder / f"img_{number:05d}.png").write_bytes(b"broken")
    with open_video(folder) as images:
        assert np.array_equal(images.frames([5, 2])[:, 0, 0, 0], [picture(5)[0, 0, 0], picture(2)[0, 0, 0]])


@pytest.mark.parametrize(
    ("name", "first"),
    [("img_{:05d}.png", 1), ("{:05d}.png", 0), ("frame_{:06d}.png", 100), ("{}.PNG", 8), ("a1_b 2-{}.png", 1)],
)
def test_images_are_ordered_by_their_numbers_whatever_surrounds_them(tmp_path: Path, name: str, first: int) -> None:
    folder = tmp_path / "a#1"
    folder.mkdir()
    for index in range(4):
        (folder / name.format(first + index)).write_bytes(encoded(picture(index)))
    (folder / "._img_00001.png").write_bytes(b"what another system left")
    (folder / "notes.txt").write_text("nothing")
    with open_video(folder) as images:
        assert numbers_of(images.frames(range(4))) == pytest.approx([0, 1, 2, 3], abs=0.3)


def test_a_range_is_a_video_of_its_own(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "a", 20, first=5)
    for first, frames, expected in ((10, 4, [5, 8]), (None, 3, [0, 2]), (5, 20, [0, 19])):
        path = FrameRange(folder, first, frames).path()
        assert frame_range_of(path) == FrameRange(folder, first, frames)
        with open_video(path) as images:
            assert (len(images), images.path) == (frames, path)
            assert numbers_of(images.frames([0, frames - 1])) == pytest.approx(expected, abs=0.3)
            with pytest.raises(IndexError):
                images.frames([frames])
    assert FrameRange(folder).path() == folder
    assert frame_range_of(tmp_path / "nowhere#1+4") is None, "there is no such folder"
    (tmp_path / "b#1+4").mkdir()
    assert frame_range_of(tmp_path / "b#1+4") == FrameRange(tmp_path / "b#1+4"), "a folder that is really called so"


def test_optical_flow_beside_the_frames_does_not_count() -> None:
    names = [f"{kind}_{number:05d}.jpg" for kind in ("flow_x", "img", "flow_y") for number in (1, 2)]
    assert numbering_of(names).run(None, None) == ["img_00001.jpg", "img_00002.jpg"]
    with pytest.raises(ValueError, match=r"several numberings, such as flow_x_00001\.jpg and flow_y_00001\.jpg"):
        numbering_of(name for name in names if not name.startswith("img"))


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("gap", r"img_00004\.png is missing"),
        ("full#5+3", r"img_00007\.png is missing"),
        ("full#0+2", r"img_00000\.png is missing"),
        ("full#+7", r"img_00007\.png is missing"),
        ("full#1+0", "no frames"),
        ("double", r"img_01\.png and img_1\.png have the same number"),
        ("empty", "a folder without numbered images"),
        ("photos", "a folder without numbered images"),
    ],
)
def test_folders_that_are_no_video_say_why(tmp_path: Path, path: str, reason: str) -> None:
    write_images(tmp_path / "full", 6)
    (write_images(tmp_path / "gap", 6) / "img_00004.png").unlink()
    for folder, names in {"double": ["img_1.png", "img_01.png"], "empty": [], "photos": ["cat.jpg"]}.items():
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).touch()
    with pytest.raises(BadVideo, match=reason) as caught:
        probe(tmp_path / path)
    assert caught.value.path == tmp_path / path


def test_gaps_are_named_as_unpadded_numbers_are_written() -> None:
    with pytest.raises(ValueError, match=r"^frame9\.png is missing"):
        numbering_of(["frame8.png", "frame10.png"]).run(None, None)
    assert numbering_of(["99.png", "100.png"]).run(None, None) == ["99.png", "100.png"]


def test_a_bad_image_is_named(tmp_path: Path) -> None:
    good = {extension: encoded(picture(0), extension) for extension in (".png", ".jpg", ".bmp")}
    bad = {
        "cut.png": good[".png"][:-200],
        "cut.jpg": good[".jpg"][: len(good[".jpg"]) * 3 // 4],
        "cut.bmp": good[".bmp"][:-500],
        "flipped.png": good[".png"][:90] + bytes([good[".png"][90] ^ 16]) + good[".png"][91:],
        "empty.jpg": b"",
        "text.jpg": b"<html>404</html>",
        "other.png": encoded(picture(0, (32, 48))),
    }
    for number, (name, data) in enumerate(bad.items()):
        folder = write_images(tmp_path / str(number), 3, name="img_{:05d}" + Path(name).suffix)
        file = folder / f"img_00002{Path(name).suffix}"
        file.write_bytes(data)
        report = examine(folder)
        assert (report.frames, report.reason[: len(file.name) + 2]) == (1, f"{file.name}: "), name
        assert "\n" not in report.reason
        with pytest.raises(BadVideo), open_video(folder) as images:
            images.frames([0, 1])
    assert report.reason == "img_00002.png: 32x48 pixels, but images before it have 64x48"


def test_what_lies_in_the_place_of_an_image_is_not_read(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "a", 2)
    for number, make in ((3, os.mkdir), (4, os.mkfifo)):
        make(folder / f"img_{number:05d}.png")
    for number in (2, 3):
        with open_video(folder) as images, pytest.raises(BadVideo, match=f"img_0000{number + 1}.png: not a file"):
            images.frames([number])
    (folder / "img_00003.png").rmdir()
    os.symlink("nowhere", folder / "img_00003.png")
    with open_video(folder) as images, pytest.raises(BadVideo, match=r"img_00003\.png: no such file"):
        images.frames([2])


def test_jpeg_bytes_are_read_whatever_the_file_is_called(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "a", 2)
    (folder / "img_00002.png").write_bytes(encoded(picture(1), ".jpg"))
    with open_video(folder) as images:
        assert numbers_of(images.frames([1])) == pytest.approx([1], abs=0.5)


def test_images_are_turned_as_exif_says(tmp_path: Path) -> None:
    upright = picture(3, (64, 48))
    (tmp_path / "a").mkdir()
    for number, (turns, orientation) in enumerate({0: 1, 1: 6, 2: 3, 3: 8}.items()):
        stored = np.ascontiguousarray(np.rot90(upright, turns))  # to be turned clockwise by so many quarters
        (tmp_path / "a" / f"{number}.jpg").write_bytes(turned_jpeg(stored, orientation))
        with open_video(FrameRange(tmp_path / "a", number, 1).path()) as images:
            assert (images.info.width, images.info.height) == (64, 48), "FFmpeg 8 tells; an older one may not"
            assert np.abs(images.frames([0])[0].astype(int) - upright).mean() < 3


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(pixels=1000), r"img_00001\.png: "),
        (Limits(frames=3), "more than 3 frames"),
        (Limits(seconds=0.0), "not read within 0 seconds"),
    ],
)
def test_limits_hold(tmp_path: Path, limits: Limits, reason: str) -> None:
    folder = write_images(tmp_path / "a", 4)
    with pytest.raises(BadVideo, match=reason), open_video(folder, limits=limits) as images:
        images.frames([0])


def test_any_decoder_reads_folders_by_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tubelet.video.read.decoders.why_missing", lambda *, cuda: None)
    with Reading(decoder="torchcodec").open(write_images(tmp_path / "a", 3)) as images:
        assert isinstance(images, FrameFolder)
        assert len(images) == 3


def test_a_changed_image_changes_the_state(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "a", 4)
    before = source_state(folder)
    part = FrameRange(folder, 2, 2).path()
    assert before[0] > source_state(part)[0]
    os.utime(folder / "img_00002.png", ns=(0, before[1] + 10**9))
    assert source_state(folder) == (before[0], before[1] + 10**9)
    with pytest.raises(FileNotFoundError):
        source_state(tmp_path / "nowhere")
    file = write_video(tmp_path / "a.mp4", 2)
    assert source_state(file) == (file.stat().st_size, file.stat().st_mtime_ns)


def test_long_folders_are_cut_like_long_videos(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "a", 60)
    assert length_of(folder, lambda _: None).seconds == 2.0
    with open_part(Reading(), folder, VideoPart(2, 1.0, 2.0)) as piece:
        assert len(piece) == 30
        assert numbers_of(piece.frames([0])) == pytest.approx([30], abs=0.3)


def test_folders_are_prepared_like_files(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "a", 45)
    how = Preparation(segment_seconds=1.0, short_side=24)
    parts = transcode(folder, lambda number: tmp_path / f"{number}.mp4", how, beat=lambda _: None)
    assert [(part.frames, part.width, part.height) for part in parts] == [(23, 32, 24), (22, 32, 24)]
    with open_video(parts[1].path) as video:
        assert numbers_of(video.frames([0, 21])) == pytest.approx([23, 44 - 200 / 6], abs=0.5)
        assert video.info.fps == pytest.approx(30)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["img_1.jpg", "img_2.jpg"], True),
        (["1.png", "notes.txt", ".DS_Store"], True),
        (["img_1.jpg", "cover.jpg"], False),
        (["img_1.jpg", "a.mp4"], False),
        (["notes.txt"], False),
    ],
)
def test_a_folder_says_itself_whether_it_is_a_video(tmp_path: Path, names: list[str], expected: bool) -> None:
    assert is_frame_folder(tmp_path, names, video_extensions={".mp4", ".webp"}) == expected


@pytest.mark.parametrize(("flags", "expected"), [(2, False), (16, True), (None, True)])
def test_moving_webp_files_are_videos_each(tmp_path: Path, flags: int | None, expected: bool) -> None:
    chunk = b"VP8 " if flags is None else b"VP8X" + bytes([10, 0, 0, 0, flags])
    (tmp_path / "1.webp").write_bytes(b"RIFF\0\0\0\0WEBP" + chunk + bytes(20))
    assert is_frame_folder(tmp_path, ["1.webp"], video_extensions={".webp"}) == expected


@pytest.mark.parametrize("extension", [".png", ".jpg", ".bmp"])
def test_no_damage_escapes_as_another_error(tmp_path: Path, extension: str) -> None:
    """Images with changed bytes, or cut short, either read or are BadVideo; nothing else comes out."""
    folder = write_images(tmp_path / "a", 2, name="{}" + extension, size=(32, 24))
    file, rng = folder / f"2{extension}", np.random.default_rng(0)
    reasons: list[str] = []
    good = file.read_bytes()
    for trial in range(60):
        data = bytearray(good[: int(rng.integers(len(good)))] if trial % 3 == 0 else good)
        for place in rng.integers(max(len(data), 1), size=4 if data else 0):
            data[place] = int(rng.integers(256))
        file.write_bytes(data)
        try:
            with open_video(folder) as images:
                images.frames([0, 1], short_side=16)
        except BadVideo as error:
            reasons.append(str(error))
    assert len(reasons) >= 20, "what is cut short, at least"
    assert not [reason for reason in reasons if "\n" in reason]
