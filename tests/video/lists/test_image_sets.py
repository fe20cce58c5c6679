"""Which images a folder or list means, and when: recipes of one frame take them, others say what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from image_files import write_image_set, write_images
from PIL import Image
from video_files import level, write_video

from tubelet.types import ClipShape
from tubelet.video.lists.cut import length_of
from tubelet.video.lists.manifest import read_manifest
from tubelet.video.read.file import frames
from tubelet.video.sample import Sampler, Segments, Span, Strided, Uniform


def names(source: Path, *, labelled: bool = False, clip_frames: int | None = 1, root: Path | None = None) -> list[str]:
    return [one.name for one in read_manifest(source, root=root, labelled=labelled, clip_frames=clip_frames).videos]


def test_class_folders_of_imagenet_hold_images_for_one_frame_and_are_no_video(tmp_path: Path) -> None:
    write_image_set(tmp_path / "train", each=3)
    manifest = read_manifest(tmp_path / "train", labelled=True, clip_frames=1)
    assert manifest.classes == ("n01440764", "n02102040")
    assert [(one.name, one.label) for one in manifest.videos][2:4] == [
        ("n01440764/n01440764_84.JPEG", 0), ("n02102040/n02102040_10.JPEG", 1),
    ]  # fmt: skip
    assert len(manifest.videos) == 6
    assert manifest.notes == ()
    with pytest.raises(ValueError, match=r"lies beside the class folders.*clip\.frames=1"):
        read_manifest(tmp_path / "train", labelled=True, clip_frames=16)


def test_numbered_images_are_frames_of_a_video_for_more_than_one(tmp_path: Path) -> None:
    write_images(tmp_path / "set/a", 4)
    assert names(tmp_path / "set", clip_frames=2) == names(tmp_path / "set", clip_frames=None) == ["a"]
    assert names(tmp_path / "set") == [f"a/img_0000{number}.png" for number in (1, 2, 3, 4)]
    assert names(tmp_path / "set/a", clip_frames=16) == ["a"]
    assert len(names(tmp_path / "set/a")) == 4


def test_a_list_may_name_images_videos_and_folders_of_frames(tmp_path: Path) -> None:
    write_images(tmp_path / "frames", 4)
    write_image_set(tmp_path / "set", each=1)
    write_video(tmp_path / "a.mp4")
    (tmp_path / "list.csv").write_text(
        "path,label\nset/n01440764/n01440764_10.JPEG,1\na.mp4,0\nframes,1\nframes/img_00002.png,0\n"
    )
    read = read_manifest(tmp_path / "list.csv", labelled=True, clip_frames=1).videos
    assert [one.label for one in read] == [1, 0, 1, 0]
    assert [one.path.exists() for one in read] == [True] * 4
    (tmp_path / "names.txt").write_text("frames/img_00001.png fish\nframes/img_00002.png dog\n")
    assert read_manifest(tmp_path / "names.txt", labelled=True, clip_frames=1).classes == ("dog", "fish")
    (tmp_path / "list.jsonl").write_text('{"path": "frames/img_00003.png"}\n')
    assert names(tmp_path / "list.jsonl") == ["frames/img_00003.png"]
    assert names(tmp_path / "frames/img_00003.png") == ["img_00003.png"]


def test_what_is_passed_by_is_said_and_a_video_gives_a_frame(tmp_path: Path) -> None:
    write_image_set(tmp_path, each=1)
    (tmp_path / "n01440764/notes.txt").write_text("hello")
    (tmp_path / ".hidden.png").write_text("no image")
    manifest = read_manifest(tmp_path, labelled=False, clip_frames=1)
    assert len(manifest.videos) == 2
    assert manifest.notes == (
        f"{tmp_path}: passed by 1 file without the ending of an image: n01440764/notes.txt",
    )  # fmt: skip
    write_video(tmp_path / "n01440764/a.mp4")
    manifest = read_manifest(tmp_path, labelled=False, clip_frames=1)
    assert len(manifest.videos) == 3
    assert "2 images, and 1 video, such as n01440764/a.mp4, of which a frame counts as an image" in manifest.notes[0]


def test_images_where_videos_are_wanted_are_refused(tmp_path: Path) -> None:
    write_image_set(tmp_path / "set", each=1)
    for place, path in enumerate(sorted((tmp_path / "set").rglob("*.JPEG"))):
        path.rename(tmp_path / "set" / f"{'ab'[place]}.jpeg")
    (tmp_path / "list.txt").write_text("set/a.jpeg\nset/b.jpeg\n")
    (tmp_path / "labelled.txt").write_text("set/a.jpeg 0\nset/b.jpeg 1\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("hello")
    for source, labelled, clip_frames, why in (
        (
            tmp_path / "list.txt",
            False,
            16,
            r"list.txt, line 1: set/a.jpeg: an image, where videos are wanted; .*clip.fra",
        ),
        (tmp_path / "labelled.txt", True, None, r"labelled.txt, line 1: set/a.jpeg: an image"),
        (tmp_path / "set/a.jpeg", False, 16, r"set/a.jpeg: an image, where"),
        (tmp_path / "set", False, 16, r"no videos in this folder .* it holds 2 images: images are for recipes of one"),
        (empty, False, 1, r"empty: no images in this folder"),
        (tmp_path / "set", True, 1, r"a.jpeg: lies beside the class folders"),
    ):
        with pytest.raises(ValueError, match=why) as refused:
            read_manifest(source, labelled=labelled, clip_frames=clip_frames)
        assert len(str(refused.value).splitlines()) == 1


def test_a_still_webp_is_an_image_and_a_moving_one_a_video(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (32, 32), colour) for colour in ("red", "green", "blue")]
    pictures[0].save(tmp_path / "still.webp")
    pictures[0].save(tmp_path / "moving.webp", save_all=True, append_images=pictures[1:])
    several, one = (read_manifest(tmp_path, labelled=False, clip_frames=count) for count in (16, 1))
    assert [video.name for video in several.videos] == ["moving.webp"]
    assert "passed by 1 image: still.webp" in several.notes[0]
    assert [video.name for video in one.videos] == ["moving.webp", "still.webp"]
    assert "1 image, and 1 video, such as moving.webp" in one.notes[0]
    (tmp_path / "list.txt").write_text("still.webp\n")
    with pytest.raises(ValueError, match=r"line 1.*an image, where videos are wanted"):
        read_manifest(tmp_path / "list.txt", labelled=False, clip_frames=16)


def test_a_set_of_images_read_as_frames_says_so(tmp_path: Path) -> None:
    write_image_set(tmp_path, each=3)
    with pytest.raises(
        Exception, match=r"n01440764_11\.JPEG is missing, as most numbers are: images that are no video"
    ):
        frames(tmp_path / "n01440764", [0])


@pytest.mark.parametrize("sampler", [Strided(stride=4), Span(stride=4), Span(stride=1), Segments(), Uniform()])
@pytest.mark.parametrize("clips", [1, 3])
def test_every_sampler_takes_the_only_frame(sampler: Sampler, clips: int) -> None:
    clip = ClipShape(frames=1)
    assert sampler.train(1, clip.frames, np.random.default_rng(0)).tolist() == [0]
    assert sampler.views(1, clip.frames, clips).tolist() == [[0]] * clips
    for total in (2, 7, 90):
        found = sampler.train(total, 1, np.random.default_rng(total))
        assert found.shape == (1,)
        assert 0 <= found[0] < total


def test_an_image_is_not_cut_into_pieces(tmp_path: Path) -> None:
    write_image_set(tmp_path, each=1)
    assert length_of(tmp_path / "n01440764/n01440764_10.JPEG", lambda _: None).seconds == 0.0


@pytest.mark.parametrize("codec", ["libx264", "ffv1", "mjpeg"])
def test_a_grey_scale_video_becomes_rgb(codec: str, tmp_path: Path) -> None:
    """Equal channels, and the level that was drawn: H.264 is taken to keep grey in 16..235, as it does colour."""
    path = tmp_path / "grey.mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=10)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "gray" if codec != "mjpeg" else "yuvj420p"
        for index in range(4):
            shade = round(16 + level(index) * 219 / 255) if codec == "libx264" else level(index)
            drawn = np.full((48, 64), shade, np.uint8)
            frame = av.VideoFrame.from_ndarray(drawn, format="gray").reformat(format=stream.pix_fmt)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    found = frames(path, [0, 3]).astype(int)
    assert found.shape == (2, 48, 64, 3)
    assert np.ptp(found, axis=-1).max() <= 2
    assert found.mean((1, 2, 3)).tolist() == pytest.approx([level(0), level(3)], abs=3)
