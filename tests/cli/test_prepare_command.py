"""`tubelet prepare` as a user runs it: what is said, and with which exit code."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from video_files import write_video
from zoo import ZOO, needs_zoo, rows

from tubelet.cli import main
from tubelet.cli.prepare import parse_size
from tubelet.train.records.log import read_log
from tubelet.video.lists.manifest import read_manifest

RECIPE = "videomae-s-small-pretrain"
TINY = [
    "clip.frames=4", "clip.size=16", "model.encoder.width=16", "model.encoder.depth=1", "model.encoder.heads=2",
    "model.encoder.patch=8", "model.decoder.width=16", "model.decoder.depth=1", "model.decoder.heads=2",
    "mask.ratio=0.5", "run.batch_size=2", "schedule.epochs=2", "schedule.warmup_epochs=0", "data.workers=0",
    "run.device=cpu", "run.precision=fp32", "run.threads=1", "run.log_every=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "videos"
    for number in range(4):
        write_video(folder / f"{number}.mp4", frames=20 + number)
    return folder


def command(*arguments: str | Path) -> int:
    """Run it in this process; its exit code."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


def test_what_is_said(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.txt").write_text("".join(f"{videos}/{number}.mp4\n" for number in range(4)) + "gone.mp4\n")
    assert command("prepare", tmp_path / "bad.txt", tmp_path / "out", "--root", videos, "--workers", "1") == 0
    said = capsys.readouterr()
    assert f"list: {tmp_path / 'out/bad.csv'}" in said.out
    assert "prepared 4 videos, 3.4 s long" in said.err
    assert "x real time" in said.err
    assert "1 videos skipped" in said.err
    assert "1 x no such file" in said.err
    assert (tmp_path / "out/bad.csv").read_text() == "".join(f"{number}.mp4\n" for number in range(4))
    assert command("prepare", tmp_path / "bad.txt", tmp_path / "out", "--root", videos, "--max-skipped", "0.1") == 2
    said = capsys.readouterr()
    assert said.err.strip().splitlines()[-1].startswith("tubelet: 1 of 5 videos were skipped")
    assert "4 were there" in said.err


def test_unlabelled_videos_are_cut_and_labelled_ones_are_not(tmp_path: Path) -> None:
    long = write_video(tmp_path / "set/up/long.mp4", 4, times=[0, 200_000, 400_000, 700_000])
    assert command("prepare", long.parent, tmp_path / "plain", "--workers", "1") == 0
    assert len(list((tmp_path / "plain").glob("long.part*.mp4"))) == 2
    assert command("prepare", tmp_path / "set", tmp_path / "labelled", "--labelled", "--workers", "1") == 0
    assert (tmp_path / "labelled/set.csv").read_text() == "up/long.mp4\tup\n"


def test_training_on_files_and_on_shards_is_the_same(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert command("prepare", videos, out, "--shards", "10KB", "--workers", "1") == 0
    assert len(list(out.glob("videos-*.tar"))) > 1
    sources = {"folder": out, "list": out / "videos.csv", "shards": out / "videos-{000000..000001}.tar"}
    losses = {}
    for name, source in sources.items():
        assert command("pretrain", RECIPE, "--data", source, "--out", tmp_path / name, *TINY) == 0
        losses[name] = [record["loss"] for record in read_log(tmp_path / name / "log.jsonl")]
    assert len(losses["folder"]) == 4
    assert np.isfinite(losses["folder"]).all()
    assert losses["folder"] == losses["list"] == losses["shards"]


def test_mistakes(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("prepare", tmp_path / "nowhere", tmp_path / "out") == 2
    assert command("prepare", videos, tmp_path / "out", "--shards", "many") == 2
    assert "256MB" in capsys.readouterr().err
    assert command("prepare", videos, videos / "out") == 2
    assert command("prepare", videos, Path("/proc/out")) == 2
    assert "/proc/out" in capsys.readouterr().err
    (tmp_path / "list.csv").write_text(f"{videos}/0.mp4\n")
    assert command("prepare", tmp_path / "list.csv", tmp_path / "out", "--labelled") == 2
    assert "no label" in capsys.readouterr().err


def test_sizes() -> None:
    assert [parse_size(text) for text in ("256MB", "1.5G", "20 kb")] == [256_000_000, 1_500_000_000, 20_000]
    for text in ("256", "MB", "-1MB", "0MB", "1PB"):
        with pytest.raises(ValueError, match="256MB or 1GB"):
            parse_size(text)


@needs_zoo
@pytest.mark.slow
def test_every_file_of_the_zoo_is_prepared_or_named(tmp_path: Path) -> None:
    """Prepared with all its frames where a plain decode reads it, else skipped with a reason."""
    assert command("prepare", ZOO, tmp_path / "out", "--short-side", "64", "--limit", "60") == 0
    with (tmp_path / "out/sources.csv").open(encoding="utf-8", newline="") as file:
        made = {str(Path(row["source"]).relative_to(ZOO)): row["frames"] for row in csv.DictReader(file)}
    with (tmp_path / "out/skipped.csv").open(encoding="utf-8", newline="") as file:
        skipped = {str(Path(row["path"]).relative_to(ZOO)): row["reason"] for row in csv.DictReader(file)}
    assert made == {row["file"]: row["frames"] for row in rows() if not row["error"]}
    assert skipped.keys() == {row["file"] for row in rows() if row["error"]}
    assert all(skipped.values())
    assert len(read_manifest(tmp_path / "out", labelled=False).videos) == len(made)
