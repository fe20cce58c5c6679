"""From `check` to `search` on folders of images, by VideoMAE V2's lists; the same numbers as from video files."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from pathlib import Path

import pytest
from image_files import as_video, write_images

from tubelet.cli import main
from tubelet.recipe import override
from tubelet.recipes.videomae import pretrain_tiny
from tubelet.runs.pretrain import pretrain
from tubelet.train.records.log import read_log
from tubelet.train.records.watch import SilentWatch

FOLDERS = {"bright/one": 12, "bright/two": 16, "dark/one": 14, "dark/two.x": 10}
MODEL = ("model.encoder.width=24", "model.encoder.depth=1", "model.encoder.heads=2", "model.encoder.patch=8")
SHAPE = ("clip.frames=4", "clip.size=16", "data.workers=0", "run.device=cpu", "run.precision=fp32", "run.threads=1")
SHORT = ("run.batch_size=2", "run.log_every=1", "schedule.epochs=2", "schedule.warmup_epochs=0")
DECODER = ("model.decoder.width=16", "model.decoder.depth=1", "model.decoder.heads=2")
TINY = (*MODEL, *SHAPE, *SHORT)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`frames/CLASS/NAME/img_00001.jpg`, and V2's two lists of them."""
    for name, count in FOLDERS.items():
        write_images(tmp_path / "frames" / name, count, name="img_{:05d}.jpg", size=(32, 24))
    rows = list(FOLDERS.items())
    (tmp_path / "pre.csv").write_text("".join(f"{name} 1 {count}\n" for name, count in rows))
    (tmp_path / "fine.csv").write_text(
        "".join(f"{name} {count} {row // 2}\n" for row, (name, count) in enumerate(rows))
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tubelet(*words: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as stop:
        main(list(words))
    assert stop.value.code in (0, None), out.getvalue()
    return out.getvalue()


def test_pretraining_on_images_gives_the_losses_of_the_same_videos(here: Path) -> None:
    """Both pages of the trade: the list of folders, and that of files made of the very same JPEGs."""
    lines = []
    for name in FOLDERS:
        (here / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        lines.append(as_video(here / "frames" / name, here / "files" / f"{name}.mov").relative_to(here).as_posix())
    (here / "files.csv").write_text("\n".join(lines) + "\n")
    losses = []
    for source, root in (("pre.csv", here / "frames"), ("files.csv", here)):
        data = (f"data.videos={here / source}", f"data.root={root}", "data.views=2")
        run = here / f"run-{source}"
        pretrain(override(pretrain_tiny(), [*TINY, *DECODER, *data]), run, SilentWatch())
        losses.append([row["loss"] for row in read_log(run / "log.jsonl")])
    assert losses[0] == losses[1]
    assert len(losses[0]) == 2 * len(FOLDERS) // 2


def test_every_command_takes_folders(here: Path) -> None:
    report = tubelet("check", "frames", "--workers", "1")
    assert f"4 files: 4 readable ({sum(FOLDERS.values())} frames), none broken" in report
    root = ("--root", "frames")
    tubelet("pretrain", "videomae-ti-cpu-pretrain", "--data", "pre.csv", *root, "--out", "pre", *TINY, *DECODER)
    training = ("--train", "fine.csv", "--val", "fine.csv", *root, "--start", "pre", "--out", "fine")
    tubelet("finetune", "videomae-ti-cpu-finetune", *training, "data.cache=cache", *TINY)
    tubelet("evaluate", "fine", "fine.csv", *root)
    shown = json.loads(tubelet("predict", "frames/bright/one", "--from", "fine", "--format", "json"))
    assert len(shown) == 1
    tubelet("embed", "frames", "--from", "pre", "--out", "store.parquet", "--device", "cpu")
    tubelet("search", "frames/dark/one", "--in", "store.parquet", "--device", "cpu", "--json", "found.json")
    best = json.loads((here / "found.json").read_text())["hits"][0]
    assert (best["name"], best["score"]) == ("dark/one", pytest.approx(1.0, abs=1e-4))
    tubelet("reconstruct", "frames/bright/two", "--from", "pre", "-o", "strip.png")
    assert (here / "strip.png").is_file()


def test_prepared_folders_are_files_with_the_same_labels(here: Path) -> None:
    tubelet("prepare", "fine.csv", "--root", "frames", "ready", "--labelled", "--workers", "1")
    with (here / "ready/fine.csv").open() as file:
        assert sorted(file.read().split()) == sorted(
            word for row, name in enumerate(FOLDERS) for word in (f"{name}.mp4", str(row // 2))
        )
    with (here / "ready/sources.csv").open(newline="") as table:
        assert [int(row["frames"]) for row in csv.DictReader(table)] == list(FOLDERS.values())
