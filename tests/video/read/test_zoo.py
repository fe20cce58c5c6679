"""Real odd files: the manifest beside them says what a plain decode gives."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner
from video_files import plainly
from zoo import ZOO, needs_zoo, rows

from tubelet.cli.check import check
from tubelet.video.read.file import open_video

SMALL_BYTES = 120_000  # decoding all of them in full twice would take half a minute

READABLE = [row for row in rows() if not row["error"]]
TO_COMPARE = [row["file"] for row in READABLE if int(row["bytes"]) < SMALL_BYTES or "rot" in row["file"]][::2]
SPECIAL = [
    "made/vfr.mp4",
    "made/vfr_gap.webm",
    "made/edit_list_trim.mp4",
    "made/start_offset_5s.mkv",
    "made/two_video_streams.mkv",
    "made/long_gop_bframes.mp4",
    "made/odd_127x95_444.mp4",
    "made/raw_stream.h264",
    "made/xvid.avi",
    "native/cockatoo.mp4",  # 4:4:4 of an old x264, several key frames
    "native/no_duration.webm",
    "native/rotated_90.mov",
    "native/rotated_180.mov",
    "native/unordered_pts.mov",
]


@needs_zoo
@pytest.mark.parametrize("name", sorted({*TO_COMPARE, *SPECIAL}))
def test_frames_equal_a_full_decode(name: str) -> None:
    row = next(row for row in READABLE if row["file"] == name)
    reference = plainly(ZOO / name)
    rng = np.random.default_rng(0)
    with open_video(ZOO / name) as video:
        assert len(video) == int(row["frames"])
        assert (video.info.height, video.info.width) == reference[0].shape[:2]
        assert (np.diff(video.seconds) > 0).all()
        for wanted in (rng.integers(len(video), size=3), rng.integers(len(video), size=1), [len(video) - 1, 0]):
            got = video.frames(wanted)
            assert all(np.array_equal(frame, reference[index]) for frame, index in zip(got, wanted, strict=True))


@needs_zoo
@pytest.mark.parametrize("turn", ["0", "90", "180", "270"])
def test_phone_clips_stand_upright(turn: str) -> None:
    """Four clips of one scene: brighter above than below once each is turned."""
    with open_video(ZOO / f"native/rotated_{turn}.mov") as video:
        frame = video.frames([0])[0].astype(float)
    assert frame[:20].mean() > frame[-20:].mean() + 20
    assert frame.shape[:2] == ((568, 320) if turn in ("90", "270") else (320, 568))


@needs_zoo
def test_check_classifies_every_file_as_the_manifest_says(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(check)
    result = CliRunner().invoke(app, [str(ZOO), "--csv", str(tmp_path / "found.csv")])
    assert result.exit_code == 0, result.output
    with (tmp_path / "found.csv").open(encoding="utf-8", newline="") as file:
        found = {row["file"]: row for row in csv.DictReader(file)}
    expected = {row["file"]: ("no" if row["error"] else "yes", row["frames"]) for row in rows()}
    assert {name: (row["readable"], row["frames"]) for name, row in found.items()} == expected
    assert all(row["reason"] for row in found.values() if row["readable"] == "no")
    broken = sum(readable == "no" for readable, _ in expected.values())
    assert f"{len(expected)} files" in result.output
    assert f"{broken} broken" in result.output
