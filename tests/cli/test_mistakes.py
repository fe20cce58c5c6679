"""Each mistake a person makes at the command line is one clear line on stderr and exit code 2, never a traceback."""

import subprocess
import sys
from pathlib import Path

import pytest
from toy_labelled import labelled_folder
from video_files import write_video

from tubelet.cli import main

TINY = [
    "clip.frames=4", "clip.size=16", "model.encoder.width=16", "model.encoder.depth=1", "model.encoder.heads=2",
    "model.encoder.patch=8", "model.decoder.width=16", "model.decoder.depth=1", "model.decoder.heads=2",
    "mask.ratio=0.5", "run.batch_size=2", "schedule.epochs=1", "schedule.warmup_epochs=0", "data.workers=0",
    "run.device=cpu", "data.sampler=uniform",
]  # fmt: skip
PRETRAIN = ["pretrain", "videomae-s-small-pretrain", *TINY]
FINETUNE = [
    "finetune",
    "videomae-s-small-finetune",
    *[change for change in TINY if not change.startswith(("mask", "model.dec"))],
]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(4):
        write_video(folder / f"{number}.mp4", frames=8)
    return folder


def mistake(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Run the command; its exit code must be 2 and its last word one line."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert stop.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines, "a mistake without a word"
    assert lines[-1].startswith("tubelet: ")
    assert not any("Traceback" in line for line in lines)
    return lines[-1]


def test_no_such_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = mistake(capsys, *PRETRAIN, "--data", tmp_path / "nowhere", "--out", tmp_path / "run")
    assert str(tmp_path / "nowhere") in line
    assert not (tmp_path / "run").exists()


def test_empty_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert "empty" in mistake(capsys, *PRETRAIN, "--data", tmp_path / "empty", "--out", tmp_path / "run")


def test_list_with_a_bad_line(tmp_path: Path, videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = tmp_path / "train.csv"
    listed.write_text(f"{videos}/0.mp4 0\n{videos}/1.mp4\n{videos}/2.mp4 1\n")
    line = mistake(capsys, *FINETUNE, "--train", listed, "--out", tmp_path / "run")
    assert f"{listed}" in line
    assert "2" in line.removeprefix(f"tubelet: {listed}")


def test_label_out_of_range(tmp_path: Path, videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = tmp_path / "train.csv"
    listed.write_text(f"{videos}/0.mp4 0\n{videos}/1.mp4 7\n{videos}/2.mp4 1\n")
    line = mistake(capsys, *FINETUNE, "classes=3", "--train", listed, "--out", tmp_path / "run")
    assert "7" in line
    assert "train.csv" in line


def test_size_that_is_not_a_multiple_of_the_patch(
    tmp_path: Path, videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = mistake(capsys, *PRETRAIN, "clip.size=20", "--data", videos, "--out", tmp_path / "run")
    assert "clip.size 20 is not a multiple of the patch 8" in line


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_unknown_recipe(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'videomae-" in mistake(capsys, command, f"videomae-s-smal-{command}")


def test_recipe_of_the_other_kind(capsys: pytest.CaptureFixture[str]) -> None:
    line = mistake(capsys, "pretrain", "videomae-s-small-finetune", "--data", "videos")  # a field that it has not
    assert "is a finetune recipe, for tubelet finetune; this command takes a pretrain recipe" in line


def test_a_name_like_no_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    line = mistake(capsys, "pretrain", ".")
    assert line.endswith("unknown recipe '.' (see: tubelet recipes list)")


def test_unknown_field(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'batch_size'?" in mistake(capsys, *PRETRAIN, "run.batchsize=3")


def test_checkpoint_of_another_shape_and_truncated(
    tmp_path: Path, videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main_ok([*PRETRAIN, "--data", str(videos), "--out", str(tmp_path / "pre")])
    by_class = labelled_folder(tmp_path / "labelled", each=2)
    wider: list[str | Path] = [
        "model.encoder.width=32",
        "--train",
        by_class,
        "--out",
        tmp_path / "fine",
        "--start",
        tmp_path / "pre",
    ]
    line = mistake(capsys, *FINETUNE, *wider)
    assert "16" in line
    assert "32" in line
    weights = tmp_path / "pre" / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:300])
    line = mistake(capsys, *FINETUNE, "--train", by_class, "--out", tmp_path / "fine", "--start", tmp_path / "pre")
    assert "model.safetensors" in line


def test_output_folder_that_is_a_file(tmp_path: Path, videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").write_text("a file")
    assert str(tmp_path / "run") in mistake(capsys, *PRETRAIN, "--data", videos, "--out", tmp_path / "run")
    assert (tmp_path / "run").read_text() == "a file"


def test_read_only_file_system(tmp_path: Path, videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that not even root can write."""
    locked = Path("/proc/tubelet-run")
    assert "/proc" in mistake(capsys, *PRETRAIN, "--data", videos, "--out", locked)


def test_batch_larger_than_the_set(tmp_path: Path, videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = mistake(capsys, *PRETRAIN, "run.batch_size=9", "--data", videos, "--out", tmp_path / "run")
    assert "run.batch_size" in line


def test_a_wrong_option_is_told_by_the_command_line_itself() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tubelet", "pretrain", "--dta", "x"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "--dta" in done.stderr
    assert "Traceback" not in done.stderr


def main_ok(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert not stop.value.code
