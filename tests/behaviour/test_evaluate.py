"""Evaluation on real files: every file of results, identity of videos, missing ones, one view."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_labelled import labelled_folder, toy_recipe, tubelet
from toy_run import Notes

from tubelet.eval.evaluate import ClassEvaluation, evaluate
from tubelet.runs.finetune import finetune
from tubelet.spec import replace
from tubelet.video.lists.manifest import read_manifest
from tubelet.weights.classifier import load_classifier


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    recipe = toy_recipe()
    train = labelled_folder(folder / "train", each=8)
    finetune(replace(recipe, data=replace(recipe.data, train=str(train))), folder / "fine", Notes())
    return folder / "fine"


@pytest.fixture
def test_set(tmp_path: Path) -> Path:
    return labelled_folder(tmp_path / "test", each=3, seed=5)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_test_set_it_never_saw_is_recognised_and_every_file_written(
    run: Path, test_set: Path, tmp_path: Path
) -> None:
    result = evaluate(run, test_set, watch=Notes(), out=tmp_path / "out")
    assert isinstance(result, ClassEvaluation)
    assert result.top1 >= 0.9
    assert result.top5 is None
    assert (result.videos, result.clips, result.crops, result.missing) == (6, 2, 3, ())
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["classes.csv", "confusion.csv", "confusion.png", "metrics.json", "predictions.csv"]
    facts = json.loads((tmp_path / "out/metrics.json").read_text())
    assert facts["top1"] == result.top1
    assert facts["top5"] is None
    assert facts["views"] == 36
    assert facts["videos"] == 6
    assert facts["missing"] == []
    assert facts["recipe"] == "toy"
    assert facts["weights"].endswith("fine/model/model.safetensors")
    low, high = facts["top1_interval_95"]
    assert 0 <= low < result.top1 <= high <= 1
    assert [row["name"] for row in rows(tmp_path / "out/classes.csv")] == ["bright", "dark"]
    assert result.confusion.sum() == 6


def test_videos_of_one_name_in_two_folders_stay_two_videos(run: Path, test_set: Path, tmp_path: Path) -> None:
    evaluate(run, test_set, watch=Notes(), out=tmp_path / "out")
    found = rows(tmp_path / "out/predictions.csv")
    assert [row["path"] for row in found] == [f"{name}/{n}.mp4" for name in ("bright", "dark") for n in range(3)]
    assert {row["predicted_name"] for row in found if row["path"].endswith("/0.mp4")} == {"bright", "dark"}
    for row in found:
        assert row["correct"] == ("yes" if row["label"] == row["predicted"] else "no")
        assert row["class_1"] == row["predicted_name"]
        assert float(row["score_1"]) + float(row["score_2"]) == pytest.approx(1.0, abs=1e-4)


def test_one_clip_and_one_crop_is_the_softmax_of_the_centre(run: Path, test_set: Path, tmp_path: Path) -> None:
    from tubelet.data.dataset import EvalDataset, VideoViews

    result = evaluate(run, test_set, watch=Notes(), clips=1, crops=1, out=tmp_path / "out")
    assert (result.clips, result.crops) == (1, 1)
    saved = load_classifier(run)
    videos = read_manifest(test_set, labelled=True).videos
    item = EvalDataset(videos, clip=saved.recipe.clip, sampler=saved.recipe.data.sampler)[4]
    assert isinstance(item, VideoViews)
    assert len(item.video) == 1
    with torch.inference_mode():
        expected = saved.classifier(item.video).softmax(1)[0].numpy()
    found = rows(tmp_path / "out/predictions.csv")[4]
    assert float(found["score_1"]) == pytest.approx(float(expected.max()), abs=1e-5)
    assert int(found["predicted"]) == int(np.argmax(expected))


def test_the_default_folder_says_source_and_views(run: Path, test_set: Path) -> None:
    assert evaluate(run, test_set, watch=Notes(), clips=3, crops=1).out == run / "evaluation" / "test-3x1"


@pytest.mark.parametrize("change", [("workers: 0", "workers: 2"), ("cache: null", "cache: FOLDER")])
def test_workers_and_cache_change_nothing(run: Path, test_set: Path, tmp_path: Path, change: tuple[str, str]) -> None:
    shutil.copytree(run, tmp_path / "run")
    recipe = tmp_path / "run/model/recipe.yaml"
    old, new = change
    assert old in recipe.read_text()
    recipe.write_text(recipe.read_text().replace(old, new.replace("FOLDER", str(tmp_path / "cache"))))
    evaluate(run, test_set, watch=Notes(), out=tmp_path / "plain")
    for name in ("once", "again"):
        evaluate(tmp_path / "run", test_set, watch=Notes(), out=tmp_path / name)
        for file in ("predictions.csv", "confusion.png"):
            assert (tmp_path / "plain" / file).read_bytes() == (tmp_path / name / file).read_bytes()


def test_a_broken_video_is_an_error_that_names_it(run: Path, test_set: Path, tmp_path: Path) -> None:
    (test_set / "dark/1.mp4").write_bytes(b"no video at all")
    with pytest.raises(ValueError, match=r"dark/1\.mp4: .*--allow-missing") as error:
        evaluate(run, test_set, watch=Notes(), out=tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out/metrics.json").exists()


def test_an_allowed_missing_video_is_listed_and_not_counted(run: Path, test_set: Path, tmp_path: Path) -> None:
    whole = evaluate(run, test_set, watch=Notes(), out=tmp_path / "whole")
    (test_set / "dark/1.mp4").write_bytes(b"no video at all")
    result = evaluate(run, test_set, watch=Notes(), allow_missing=True, out=tmp_path / "out")
    assert result.videos == whole.videos - 1
    assert [bad.name for bad in result.missing] == ["dark/1.mp4"]
    facts = json.loads((tmp_path / "out/metrics.json").read_text())
    assert facts["videos"] == 5
    assert facts["missing"][0]["path"] == "dark/1.mp4"
    assert facts["missing"][0]["reason"]
    before, after = rows(tmp_path / "whole/predictions.csv"), rows(tmp_path / "out/predictions.csv")
    assert after[4]["missing"] == facts["missing"][0]["reason"]
    assert after[4]["predicted"] == after[4]["correct"] == after[4]["score_1"] == ""
    del before[4], after[4]
    assert [row["predicted"] for row in before] == [row["predicted"] for row in after]


def test_nothing_readable_is_an_error_even_where_missing_is_allowed(run: Path, test_set: Path, tmp_path: Path) -> None:
    for path in test_set.rglob("*.mp4"):
        path.write_bytes(b"no video")
    with pytest.raises(ValueError, match="none of the 6 videos can be read"):
        evaluate(run, test_set, watch=Notes(), allow_missing=True, out=tmp_path / "out")


def test_a_test_folder_without_one_class_keeps_the_meaning_of_labels(run: Path, test_set: Path, tmp_path: Path) -> None:
    shutil.rmtree(test_set / "bright")
    result = evaluate(run, test_set, watch=Notes(), out=tmp_path / "out")
    assert isinstance(result, ClassEvaluation)
    assert result.top1 >= 0.9
    assert [row.videos for row in result.classes] == [0, 3]


def test_a_video_listed_twice_is_refused(run: Path, test_set: Path, tmp_path: Path) -> None:
    listed = test_set / "twice.csv"
    listed.write_text("bright/0.mp4 0\ndark/0.mp4 1\nbright/0.mp4 0\n")
    with pytest.raises(ValueError, match=r"twice\.csv, line 3: .*line 1"):
        evaluate(run, listed, watch=Notes(), out=tmp_path / "out")


def test_runs_that_cannot_be_evaluated_say_why(run: Path, test_set: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such run folder"):
        evaluate(tmp_path / "nowhere", test_set, watch=Notes())
    (tmp_path / "unfinished" / "checkpoints" / "step-00000004").mkdir(parents=True)
    with pytest.raises(ValueError, match="run tubelet finetune to its end first"):
        evaluate(tmp_path / "unfinished", test_set, watch=Notes())
    with pytest.raises(ValueError, match=r"holds no model/model\.safetensors"):
        evaluate(test_set, test_set, watch=Notes())
    shutil.copytree(run, tmp_path / "run")
    weights = tmp_path / "run/model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors: truncated, or not a safetensors") as error:
        evaluate(tmp_path / "run", test_set, watch=Notes())
    assert "\n" not in str(error.value)


def test_the_command_prints_a_table_and_where_the_files_are(run: Path, test_set: Path, tmp_path: Path) -> None:
    done = tubelet(tmp_path, "evaluate", str(run), str(test_set), "--clips", "1", "--crops", "2", "--out", "out")
    assert done.returncode == 0, done.stderr
    for text in ("top-1", "worst classes", "6 videos, 1 x 2 views", "out (metrics.json, predictions.csv"):
        assert text in done.stdout


def test_the_command_turns_a_bad_label_into_one_line_and_exit_code_2(run: Path, test_set: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("bright/0.mp4 0\ndark/0.mp4 9\n")
    done = tubelet(tmp_path, "evaluate", str(run), "bad.csv", "--root", str(test_set))
    assert done.returncode == 2
    assert done.stderr.strip() == "tubelet: bad.csv, line 2: label 9 of dark/0.mp4 is outside 0..1"
