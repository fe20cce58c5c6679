"""`tubelet predict` and `tubelet probe` as a person uses them: tables, files, one line for each mistake."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from toy_labelled import labelled_folder, toy_recipe
from toy_run import CLIP, Notes, pretrain_recipe

from tubelet.cli import main
from tubelet.eval.evaluate import evaluate
from tubelet.rng import step_rng
from tubelet.runs.finetune import write_classifier
from tubelet.train.checkpoint.folder import write_model
from tubelet.video.lists.manifest import read_manifest

NAMES = ("bright", "dark [x]")


@pytest.fixture(scope="module")
def fine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = toy_recipe(classes=2)
    folder = tmp_path_factory.mktemp("fine")
    with step_rng(0, 0):
        classifier = recipe.model.build(recipe.clip, 2)
        classifier.head.weight.data.normal_()
    write_classifier(folder, recipe, classifier, NAMES)
    return folder


@pytest.fixture(scope="module")
def pre(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe, folder = pretrain_recipe("data.sampler=uniform"), tmp_path_factory.mktemp("pre")
    with step_rng(0, 0):
        method = recipe.model.build(CLIP, recipe.target)
    write_model(folder, recipe, method.state_dict())
    return folder


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    labelled_folder(folder / "train", each=3)
    labelled_folder(folder / "val", each=2, seed=5)
    return folder


def tubelet(*words: str | Path) -> int:
    """The exit code."""
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return int(stop.value.code or 0)


def mistake(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    assert tubelet(*words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("tubelet: ")
    assert not any("Traceback" in line for line in lines)
    return lines[-1]


def test_the_table_has_a_line_per_video(fine: Path, videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tubelet("predict", videos / "val", videos / "train/dark/0.mp4", "--from", fine) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0].split() == ["video", "1", "2"]
    assert len(lines) == 6
    assert lines[1].startswith(str(videos / "val/bright/0.mp4"))
    assert lines[5].startswith(str(videos / "train/dark/0.mp4"))
    for line in lines[1:]:
        scores = [float(score) for score in re.findall(r"(?:bright|dark \[x\]) (\d\.\d{3})", line)]
        assert len(scores) == 2
        assert scores[0] >= scores[1]
        assert sum(scores) == pytest.approx(1.0, abs=2e-3)


def test_csv_holds_what_evaluate_writes(
    fine: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = tmp_path / "list.csv"
    listed.write_text("val/bright/0.mp4 0\nval/dark/1.mp4 1\nval/dark/0.mp4 1\n")
    assert tubelet("predict", listed, "--root", videos, "--from", fine, "--format", "csv", "--device", "cpu") == 0
    text = capsys.readouterr().out
    assert text.splitlines()[0] == "path,class_1,score_1,class_2,score_2,error"
    evaluate(fine, read_manifest(listed, root=videos, labelled=True), watch=Notes(), out=tmp_path / "out")
    with (tmp_path / "out/predictions.csv").open(newline="") as file:
        expected = list(csv.DictReader(file))
    for row, other in zip(csv.DictReader(io.StringIO(text)), expected, strict=True):
        assert row["path"] == str(videos / other["path"])
        assert row["error"] == ""
        assert [row[f"{w}_{k}"] for k in (1, 2) for w in ("class", "score")] == [
            other[f"{w}_{k}"] for k in (1, 2) for w in ("class", "score")
        ]


def test_a_bad_video_has_an_error_the_others_are_done_and_the_exit_code_is_2(
    fine: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video at all")
    out = tmp_path / "found.json"
    assert tubelet("predict", bad, videos / "val/dark", "--from", fine, "--top", "1", "-o", out) == 2
    rows = json.loads(out.read_text())
    assert rows[0].keys() == {"path", "error"}
    assert rows[0]["path"] == str(bad)
    assert [set(row["predictions"][0]) for row in rows[1:]] == [{"class", "label", "score"}] * 2
    assert all(row["predictions"][0]["class"] == NAMES[row["predictions"][0]["label"]] for row in rows[1:])
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith(f"{bad}: ")] == [f"{bad}: {rows[0]['error']}"]
    assert lines[-1] == "1 of 3 videos cannot be read"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_form_follows_the_name_of_the_file(
    fine: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, start in (("a.csv", "path,class_1"), ("a.json", "["), ("a.txt", "video")):
        out = tmp_path / name
        assert tubelet("predict", videos / "val/dark", "--from", fine, "--clips", "1", "--crops", "1", "-o", out) == 0
        assert out.read_text().startswith(start)
        assert "\x1b" not in out.read_text()
    assert capsys.readouterr().out == ""


def test_mistakes_of_predict_are_one_line(
    fine: Path, pre: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no such file" in mistake(capsys, "predict", tmp_path / "nowhere.mp4", "--from", fine)
    line = mistake(capsys, "predict", videos / "val", "--from", pre)
    assert "fine-tune" in line
    assert "tubelet embed" in line
    line = mistake(capsys, "predict", videos / "val", "--from", fine, "-o", tmp_path / "no/folder.csv")
    assert "no such folder" in line
    assert str(tmp_path / "nowhere") in mistake(capsys, "predict", videos / "val", "--from", tmp_path / "nowhere")


def test_probe_prints_a_row_per_probe_and_where_the_files_are(
    pre: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ("probe", pre, "--train", videos / "train", "--val", videos / "val", "-o", out, "-k", "2")
    assert tubelet(*words) == 0
    printed = capsys.readouterr().out
    for text in ("knn", "linear", "attentive", "50.0%", "4 videos, after 6 to learn from", "k = 2", str(out)):
        assert text in printed
    assert "top-5" not in printed
    assert tubelet(*words, "--kind", "knn") == 0
    assert "linear" not in capsys.readouterr().out
    facts = json.loads((out / "probe.json").read_text())
    assert list(facts["probes"]) == ["knn"]


def test_mistakes_of_probe_are_one_line(
    pre: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("probe", pre, "--train", videos / "train", "-o", tmp_path / "out")
    assert "no such file" in mistake(capsys, *words, "--val", tmp_path / "nowhere.csv")
    assert "-k is 0" in mistake(capsys, *words, "--val", videos / "val", "-k", "0")
    (tmp_path / "val.csv").write_text("val/dark/0.mp4 7\n")
    line = mistake(capsys, *words, "--val", tmp_path / "val.csv", "--root", videos)
    assert "val.csv, line 1: label 7" in line
    assert not (tmp_path / "out").exists()
