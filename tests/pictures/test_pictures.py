"""Pictures of reconstructions: each prediction beside its own frame, the whole caption, a place that takes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import ImageFont
from toy_reconstruct import invoke, method_of, tube_mask

from tubelet.pictures import strips as pictures
from tubelet.pictures.reconstruct import AS_LINES, FROM_TRUTH, reconstruct_clip
from tubelet.pictures.strips import refuse_unwritable, side_by_side, strip, wrapped
from tubelet.targets.hog import Hog
from tubelet.targets.pixels import FramePixels, NormalisedPixels
from tubelet.targets.unions import Target


@pytest.fixture
def clip() -> torch.Tensor:
    return torch.randint(0, 256, (1, 3, 4, 16, 16), dtype=torch.uint8)


def test_pictures_of_hog_have_a_row_for_the_truth(clip: torch.Tensor) -> None:
    found = reconstruct_clip(method_of(Hog(cell=4)), clip, tube_mask())
    assert strip(found, frames=3).shape == (20 + 4 * (128 + 4) + 2 * 20, 104 + 2 * (128 + 4), 3)
    assert side_by_side(found)[0].shape[1] == 4 * (128 + 4)


def test_pictures_have_three_rows_and_even_moving_frames(clip: torch.Tensor) -> None:
    found = reconstruct_clip(method_of(NormalisedPixels()), clip, tube_mask())
    still = strip(found, frames=3)
    assert still.shape == (20 + 3 * 116 + 20, 104 + 3 * 116, 3)
    moving = side_by_side(found)
    assert len(moving) == 4
    assert all(side % 2 == 0 for side in moving[0].shape[:2])


@pytest.mark.parametrize(
    ("target", "frames"),
    [
        (Hog(cell=4, frames="first"), (0, 2)),
        (Hog(cell=4, frames="centre"), (1, 3)),
        (Hog(cell=4, frames="all"), (0, 1, 2, 3)),
        (FramePixels(), (0, 2)),
        (NormalisedPixels(), (0, 1, 2, 3)),
    ],
)
def test_a_prediction_is_shown_beside_its_own_frame(
    clip: torch.Tensor, target: Target, frames: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = reconstruct_clip(method_of(target), clip, tube_mask())
    assert found.predicted_frames == frames
    said: list[str] = []
    draw = pictures.lettered

    def lettered(canvas: pictures.Picture, words: Sequence[tuple[int, int, str]]) -> pictures.Picture:
        said.extend(text for *_, text in words)
        return draw(canvas, words)

    monkeypatch.setattr(pictures, "lettered", lettered)
    strip(found)
    assert [text for text in said if text.startswith("frame ")] == [f"frame {number}" for number in frames]
    assert len(side_by_side(found)) == 4, "as long as the clip"


@pytest.mark.parametrize("width", [60, 110, 228, 1000])
def test_a_caption_is_broken_into_lines_that_fit_and_loses_nothing(width: int) -> None:
    font = ImageFont.load_default(13)
    for text in (f"{AS_LINES}; loss 0.514", f"{FROM_TRUTH}; loss 12.000", "a", f"runs/{'x' * 70}/{'y' * 30} and more"):
        found = wrapped(text, width)
        assert all(0 < font.getlength(line) <= width for line in found)
        assert "".join(found).replace(" ", "") == text.replace(" ", "")
    assert wrapped("one two", 1000) == ["one two"]


def test_the_picture_of_an_image_has_room_for_the_whole_caption(clip: torch.Tensor) -> None:
    """One frame of 128 pixels is 236 across with its labels; the caption takes three lines there."""
    found = reconstruct_clip(method_of(Hog(cell=2)), clip, tube_mask())
    assert found.original.shape[1] == 128
    narrow = strip(found, frames=1)
    assert narrow.shape == (20 + 4 * (128 + 4) + 3 * 20, 236, 3)
    assert (narrow[-18:] < 100).any(), "the last line is written"


def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    for path, option, reason in (
        (tmp_path / "file/strip.png", "-o", "file is a file"),
        (tmp_path / "file/deep/side.gif", "--gif", "file is a file"),
        (tmp_path / "folder.png", "-o", "a folder has this name"),
        (tmp_path / f"{'a' * 300}.mp4", "--mp4", "File name too long"),
    ):
        done = invoke("none.mp4", "--from", "none", *(() if option == "-o" else ("-o", "x.png")), option, str(path))
        assert str(done.exception) == f"{path}: cannot be written ({reason}); choose another with {option}"
    refuse_unwritable(tmp_path / "new/deep/strip.png", "-o")
    (tmp_path / "old.png").write_bytes(b"old")
    refuse_unwritable(tmp_path / "old.png", "-o")
    assert (tmp_path / "old.png").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.png", "old.png"]
