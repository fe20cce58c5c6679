"""Pre-training on a folder that contains every broken file of the zoo finishes and names them."""

import csv
from pathlib import Path

import pytest
from zoo import ZOO, needs_zoo, rows

from tubelet.recipe import PretrainRecipe, override
from tubelet.recipes.videomae import pretrain_tiny
from tubelet.runs.pretrain import pretrain
from tubelet.train.records.log import read_log
from tubelet.train.records.watch import SilentWatch

BROKEN = [row["file"] for row in rows() if row["error"]]
GOOD = [row["file"] for row in rows() if not row["error"] and int(row["w"] or 0) in range(32, 400)][:30]


def tiny(folder: Path, *changes: str) -> PretrainRecipe:
    shrunk = [
        "clip.frames=4",
        "clip.size=16",
        "model.encoder.width=16",
        "model.encoder.depth=1",
        "model.encoder.heads=2",
    ]
    short = ["model.decoder.width=16", "run.batch_size=8", "schedule.epochs=2", "schedule.warmup_epochs=0"]
    plain = [f"data.videos={folder}", "mask.ratio=0.5", "run.device=cpu", "data.workers=1", "run.log_every=1"]
    return override(pretrain_tiny(), [*shrunk, *short, *plain, *changes])


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    folder = tmp_path / "mixed"
    for name in [*BROKEN, *GOOD]:
        link = folder / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(ZOO / name)
    return folder


@needs_zoo
def test_a_run_over_broken_files_finishes_and_names_each(mixed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain(tiny(mixed, "data.max_skipped=0.7"), run, SilentWatch())
    with (run / "skipped.csv").open(newline="") as file:
        skipped = {str(Path(row["path"]).relative_to(mixed)): row["reason"] for row in csv.DictReader(file)}
    assert skipped.keys() <= set(BROKEN)
    unreached = (len(BROKEN) + len(GOOD)) % 8  # the last batch of an epoch is dropped when it is not full
    assert len(skipped) >= len(BROKEN) - unreached
    assert all(skipped.values())
    assert len(read_log(run / "log.jsonl")) == 2 * ((len(BROKEN) + len(GOOD)) // 8)


@needs_zoo
def test_too_many_broken_files_stop_the_run_in_one_line(mixed: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.max_skipped=0\.1 allows; .*skipped\.csv") as caught:
        pretrain(tiny(mixed, "data.max_skipped=0.1"), tmp_path / "run", SilentWatch())
    assert "\n" not in str(caught.value)
