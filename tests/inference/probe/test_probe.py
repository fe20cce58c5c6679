"""Probes on real files: features read once and kept, damaged videos, labels by name, every file of results."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from probe_toys import Seen, pretrained_run
from toy_labelled import labelled_folder

from tubelet.data.dataset import EvalDataset, VideoViews
from tubelet.disk.npy import row_file
from tubelet.inference.model import Model, load
from tubelet.inference.probe.attentive import AttentiveTraining, read_attentive
from tubelet.inference.probe.features import FeaturePlan, read_features
from tubelet.inference.probe.probe import PROBES, ProbeReport, ProbeSettings, probe
from tubelet.inference.progress import Quiet
from tubelet.sets.pair import LabelledPair, read_sets
from tubelet.video.lists.manifest import read_manifest

QUICK = AttentiveTraining(epochs=30, batch_size=8, lr=3e-3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(pretrained_run(tmp_path_factory.mktemp("run"), "data.sampler=uniform"), device="cpu")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    labelled_folder(folder / "train", each=6)
    labelled_folder(folder / "val", each=4, seed=5)
    return folder


@pytest.fixture
def sets(videos: Path) -> LabelledPair:
    return read_sets(videos / "train", videos / "val")


@pytest.fixture
def copied(videos: Path, tmp_path: Path) -> Path:
    """Videos that a test may damage."""
    shutil.copytree(videos, tmp_path / "videos")
    return tmp_path / "videos"


def run(model: Model, sets: LabelledPair, out: Path, seen: Seen | None = None, **changes: object) -> ProbeReport:
    settings = ProbeSettings.model_validate({"training": QUICK, "k": 3, **changes})
    return probe(model, sets, out=out, settings=settings, progress=seen or Quiet())


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_all_three_probes_see_bright_from_dark_and_write_every_file(
    model: Model, sets: LabelledPair, tmp_path: Path
) -> None:
    report = run(model, sets, tmp_path / "out")
    assert [found.kind for found in report.results] == list(PROBES)
    assert [found.top1 for found in report.results] == [1.0, 1.0, 1.0]
    assert (report.chance, report.videos, report.skipped, report.missing) == (0.5, (12, 8), (), ())
    tables = ["classes.csv", "confusion.csv", "confusion.png", "metrics.json", "predictions.csv"]
    for kind in PROBES:
        own = ["attentive.json", "attentive.safetensors"] if kind == "attentive" else []
        assert sorted(path.name for path in (tmp_path / "out" / kind).iterdir()) == sorted([*own, *tables])
    found = rows(tmp_path / "out/knn/predictions.csv")
    assert [row["path"] for row in found] == [video.name for video in sets.val]
    assert {row["correct"] for row in found} == {"yes"}
    facts = json.loads((tmp_path / "out/probe.json").read_text())
    assert facts["chance"] == 0.5
    assert facts["fingerprint"] == model.fingerprint
    assert facts["probes"]["knn"] == json.loads((tmp_path / "out/knn/metrics.json").read_text())
    assert facts["probes"]["knn"]["k"] == 3
    assert facts["probes"]["knn"]["precision_at_5"] == 1.0
    assert facts["probes"]["linear"]["folds"] == 5
    low, high = facts["probes"]["attentive"]["top1_interval_95"]
    assert low < high == 1.0
    assert rows(tmp_path / "out/skipped.csv") == []
    assert read_attentive(tmp_path / "out/attentive")[1].names == ("bright", "dark")


def test_a_second_run_reads_no_video_and_gives_the_same_files(
    model: Model, sets: LabelledPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(model, sets, tmp_path / "out")
    first = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}

    def refuse(self: EvalDataset, index: int) -> VideoViews:
        raise AssertionError("a video was read again")

    monkeypatch.setattr(EvalDataset, "__getitem__", refuse)
    seen = Seen()
    run(model, sets, tmp_path / "out", seen)
    assert sum("features of" in line and "were there" in line for line in seen.lines) == 2
    assert first == {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}


def test_two_folders_of_results_are_equal(model: Model, sets: LabelledPair, tmp_path: Path) -> None:
    for name in ("one", "two"):
        run(model, sets, tmp_path / name)
    for path in (tmp_path / "one").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes(), path


@pytest.mark.parametrize("change", ["video", "model", "clips", "list"])
def test_what_changes_features_reads_anew(
    model: Model, copied: Path, tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = read_manifest(copied / "val", labelled=True).videos
    plan = FeaturePlan(tmp_path / "features", workers=0)
    read_features(model, listed, plan, split="val", progress=Quiet())
    if change == "video":
        shutil.copy(listed[1].path, listed[0].path)
    elif change == "model":
        other = load(pretrained_run(tmp_path / "other", "data.sampler=uniform"), device="cpu")
        monkeypatch.setattr(other, "fingerprint", "another")
        model = other
    elif change == "clips":
        plan = FeaturePlan(tmp_path / "features", clips=2, workers=0)
    else:
        listed = listed[1:]
    seen = Seen()
    read_features(model, listed, plan, split="val", progress=seen)
    assert seen.begun == [("val features", len(listed), "videos")]


def test_features_are_what_the_model_gives(model: Model, videos: Path, tmp_path: Path) -> None:
    listed = read_manifest(videos / "val", labelled=True).videos
    plan = FeaturePlan(tmp_path, clips=2, tokens=True, workers=0)
    found = read_features(model, listed, plan, split="val", progress=Quiet())
    assert found.tokens is not None
    assert found.tokens.shape == (8, 2 * model.encoder.grid.tokens, model.width)
    views = EvalDataset(listed, clip=model.clip, sampler=model.sampler, clips=2)[3]
    assert isinstance(views, VideoViews)
    encoded = model.encode(views.video)
    np.testing.assert_allclose(found.pooled[3], encoded.pooled.mean(0).numpy(), atol=1e-6)
    both = torch.cat([encoded.tokens[0], encoded.tokens[1]]).numpy()
    np.testing.assert_allclose(found.tokens[3], both, atol=2e-3)
    assert not np.array_equal(found.tokens[3][: len(both) // 2], found.tokens[3][len(both) // 2 :])


def test_a_damaged_cache_is_written_anew(model: Model, videos: Path, tmp_path: Path) -> None:
    listed = read_manifest(videos / "val", labelled=True).videos
    plan = FeaturePlan(tmp_path, tokens=True, workers=0)
    first = read_features(model, listed, plan, split="val", progress=Quiet())
    for ending in (".npy", ".tokens.npy", ".json"):
        (file,) = (path for path in tmp_path.iterdir() if path.name.removeprefix("val-")[16:] == ending)
        file.write_bytes(file.read_bytes()[:-40])
        seen = Seen()
        again = read_features(model, listed, plan, split="val", progress=seen)
        assert len(seen.begun) == 1, ending
        np.testing.assert_array_equal(again.pooled, first.pooled)


def test_neighbours_alone_write_no_tokens(model: Model, sets: LabelledPair, tmp_path: Path) -> None:
    run(model, sets, tmp_path, kinds=("knn", "linear"))
    assert not list(tmp_path.rglob("*.tokens.npy"))
    seen = Seen()
    run(model, sets, tmp_path, seen, kinds=("attentive",))
    assert any("tokens of 12 videos take" in line and "MB" in line for line in seen.lines)
    assert len(list(tmp_path.rglob("*.tokens.npy"))) == 2


def test_a_disk_too_small_for_tokens_is_said_before_anything_is_read(
    model: Model, sets: LabelledPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    seen = Seen()
    with pytest.raises(ValueError, match=r"tokens of 8 videos take .* MB are free"):
        run(model, sets, tmp_path, seen)
    assert seen.begun == []


def test_a_damaged_training_video_is_listed_and_left_out_where_allowed(
    model: Model, copied: Path, tmp_path: Path
) -> None:
    bad = copied / "train/bright/1.mp4"
    bad.write_bytes(b"no video at all")
    sets = read_sets(copied / "train", copied / "val")
    with pytest.raises(ValueError, match=r"1 of 12 training videos .*--max-skipped=0 allows; .*skipped\.csv"):
        run(model, sets, tmp_path / "out")
    assert [row["path"] for row in rows(tmp_path / "out/skipped.csv")] == [str(bad)]
    seen = Seen()
    report = run(model, sets, tmp_path / "out", seen, max_skipped=0.1)
    assert seen.begun[0][0] == "linear probe"  # what was read before the refusal is not read again
    assert report.videos == (11, 8)
    assert [one.path for one in report.skipped] == [bad]
    assert report.chance == pytest.approx(0.5)
    assert [found.top1 for found in report.results] == [1.0, 1.0, 1.0]


def test_a_damaged_validation_video_is_an_error_unless_allowed(model: Model, copied: Path, tmp_path: Path) -> None:
    (copied / "val/dark/2.mp4").write_bytes(b"no video at all")
    sets = read_sets(copied / "train", copied / "val")
    seen = Seen()
    with pytest.raises(ValueError, match=r"dark/2\.mp4: .*--allow-missing"):
        run(model, sets, tmp_path / "out", seen)
    assert [what for what, _, _ in seen.begun] == ["val features"]  # before the larger set is read
    report = run(model, sets, tmp_path / "out", allow_missing=True)
    assert report.videos == (12, 7)
    found = rows(tmp_path / "out/linear/predictions.csv")
    assert [row["path"] for row in found if row["missing"]] == ["dark/2.mp4"]
    assert len(found) == 8
    assert json.loads((tmp_path / "out/probe.json").read_text())["val"]["missing"][0]["path"] == "dark/2.mp4"


def test_a_class_whose_training_videos_are_all_damaged_is_an_error(model: Model, copied: Path, tmp_path: Path) -> None:
    for path in (copied / "train/dark").iterdir():
        path.write_bytes(b"no video")
    with pytest.raises(ValueError, match="no training video of class 'dark' can be read"):
        run(model, read_sets(copied / "train", copied / "val"), tmp_path / "out", max_skipped=1.0)


def test_nothing_readable_is_an_error_and_leaves_no_features(model: Model, copied: Path, tmp_path: Path) -> None:
    for path in (copied / "val").rglob("*.mp4"):
        path.write_bytes(b"no video")
    with pytest.raises(ValueError, match="none of the 8 videos can be read"):
        run(model, read_sets(copied / "train", copied / "val"), tmp_path / "out", allow_missing=True)
    assert list((tmp_path / "out/features").iterdir()) == []


def test_labels_are_matched_by_name(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("train/dark/0.mp4 dark\ntrain/bright/0.mp4 bright\n")
    (tmp_path / "val.csv").write_text("val/dark/0.mp4 dark\n")
    sets = read_sets(tmp_path / "train.csv", tmp_path / "val.csv", root=videos)
    assert sets.names == ("bright", "dark")
    assert [video.label for video in sets.val] == [1]  # alone in its list, where it would be 0


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        ("train/dark/0.mp4 0\ntrain/dark/1.mp4 0\n", "val/dark/0.mp4 0\n", "one class"),
        ("train/dark/0.mp4 1\ntrain/dark/1.mp4 1\n", "val/dark/0.mp4 1\n", "all videos are of one class"),
        ("train/dark/0.mp4 0\ntrain/bright/0.mp4 1\n", "val/dark/0.mp4 2\n", r"line 1: label 2 .*outside 0\.\.1"),
        ("train/dark/0.mp4 0\ntrain/bright/0.mp4 2\n", "val/dark/0.mp4 1\n", "line 1: class '1' has no training video"),
        ("train/dark/0.mp4 a\ntrain/bright/0.mp4 b\n", "val/dark/0.mp4 c\n", "class 'c' is none of the classes learnt"),
        ("train/dark/0.mp4 0\ntrain/bright/0.mp4 1\n", "", "no videos listed"),
        ("", "val/dark/0.mp4 0\n", "no videos listed"),
        ("train/dark/0.mp4 0\ntrain/bright/0.mp4 1\n", "val/dark/0.mp4 0\nval/dark/0.mp4 0\n", "already on line 1"),
    ],
)
def test_sets_that_cannot_be_used_say_why_in_one_line(
    videos: Path, tmp_path: Path, train: str, val: str, message: str
) -> None:
    (tmp_path / "train.csv").write_text(train)
    (tmp_path / "val.csv").write_text(val)
    with pytest.raises(ValueError, match=message) as error:
        read_sets(tmp_path / "train.csv", tmp_path / "val.csv", root=videos)
    assert "\n" not in str(error.value)


def test_videos_in_both_sets_are_told(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "val.csv").write_text("val/dark/0.mp4 1\ntrain/dark/0.mp4 1\n")
    (tmp_path / "train.csv").write_text("train/dark/0.mp4 1\ntrain/bright/0.mp4 0\n")
    sets = read_sets(tmp_path / "train.csv", tmp_path / "val.csv", root=videos)
    assert "1 of 2 validation videos are training videos too" in sets.notes[0]
    assert read_sets(videos / "train", videos / "val").notes == ()


def test_rows_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float16).reshape(4, 3)
    with row_file(tmp_path / "a.npy", (3,), np.dtype(np.float16)) as file:
        file.add(values[:1])
        file.add(values[1:])
        assert not (tmp_path / "a.npy").exists()
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy", mmap_mode="r"), values)
    with pytest.raises(AssertionError), row_file(tmp_path / "b.npy", (4,), np.dtype(np.float16)) as file:
        file.add(values)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]
