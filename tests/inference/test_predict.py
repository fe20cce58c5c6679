"""Predictions: the scores of `tubelet evaluate`, in the order given, bad files told and left out."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from probe_toys import Seen, classifier_run, pretrained_run
from toy_labelled import labelled_folder
from toy_run import Notes

from tubelet.data.dataset import Skipped
from tubelet.eval.evaluate import evaluate
from tubelet.eval.scoring import score_videos
from tubelet.inference.model import load
from tubelet.inference.predict import Guess, Prediction, predict
from tubelet.inference.progress import Quiet
from tubelet.video.lists.manifest import VideoRef, read_manifest
from tubelet.weights.classifier import load_classifier

NAMES = ("bright", "dark", "neither")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier_run(tmp_path_factory.mktemp("run"), NAMES)


@pytest.fixture(scope="module")
def test_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_folder(tmp_path_factory.mktemp("test"), each=3)


def unlabelled(folder: Path) -> tuple[VideoRef, ...]:
    return read_manifest(folder, labelled=False).videos


def good(found: tuple[Prediction | Skipped, ...]) -> list[Prediction]:
    assert all(isinstance(one, Prediction) for one in found)
    return [one for one in found if isinstance(one, Prediction)]


@pytest.mark.parametrize("views", [(None, None), (1, 1), (3, 2)])
def test_scores_are_those_of_evaluate_bit_for_bit(
    run: Path, test_set: Path, views: tuple[int | None, int | None]
) -> None:
    saved = load_classifier(run)
    usual = saved.recipe.views
    expected = score_videos(
        saved.classifier,
        read_manifest(test_set, labelled=True).videos,
        saved.recipe,
        views=(views[0] or usual.clips, views[1] or usual.crops),
        device=next(saved.classifier.parameters()).device,
        on_bad=lambda bad: None,
        on_progress=lambda done: None,
    )
    model = load(run, device="cpu", precision="fp32")
    found = good(predict(model, unlabelled(test_set), clips=views[0], crops=views[1], progress=Quiet()))
    np.testing.assert_array_equal(np.stack([one.scores for one in found]), expected.scores)
    assert np.ptp(expected.scores[:, 0]) > 1e-3  # else any order would do


def test_the_table_of_evaluate_says_the_same(run: Path, test_set: Path, tmp_path: Path) -> None:
    evaluate(run, test_set, watch=Notes(), out=tmp_path)
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = good(predict(load(run, device="cpu"), unlabelled(test_set), progress=Quiet()))
    assert [one.name for one in found] == [row["path"] for row in rows]
    for one, row in zip(found, rows, strict=True):
        for place, guess in enumerate(one.top(3), start=1):
            assert guess.name == row[f"class_{place}"]
            assert f"{guess.score:.6g}" == row[f"score_{place}"]


def test_videos_come_back_in_the_order_given(run: Path, test_set: Path) -> None:
    videos, model = unlabelled(test_set), load(run, device="cpu")
    forward = good(predict(model, videos, progress=Quiet()))
    backward = good(predict(model, videos[::-1], progress=Quiet()))
    assert [one.path for one in backward] == [one.path for one in forward][::-1]
    np.testing.assert_allclose([one.scores for one in backward[::-1]], [one.scores for one in forward], atol=1e-6)


def test_a_bad_video_is_told_and_the_others_are_done(run: Path, test_set: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video at all")
    videos = list(unlabelled(test_set))
    model = load(run, device="cpu")
    whole = good(predict(model, videos, progress=Quiet()))
    videos.insert(1, VideoRef(bad, None, "bad.mp4"))
    seen = Seen()
    found = predict(model, videos, clips=1, crops=2, progress=seen)
    assert [type(one).__name__ for one in found] == ["Prediction", "Skipped", *["Prediction"] * 5]
    assert [one.path for one in found if isinstance(one, Prediction)] == [one.path for one in whole]
    assert len(seen.lines) == 1
    assert seen.lines[0].startswith(f"{bad}: ")
    assert "\n" not in seen.lines[0]
    assert (seen.done, seen.clips, seen.ended) == (7, 12, 1)


def test_nothing_but_bad_videos_is_no_error_here(run: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    (one,) = predict(load(run, device="cpu"), unlabelled(tmp_path), progress=Quiet())
    assert isinstance(one, Skipped)


def test_top_lists_the_likeliest_first_and_no_more_than_there_are() -> None:
    one = Prediction(0, "a", Path("a"), np.array([0.25, 0.5, 0.25]), NAMES)
    assert one.top(2) == (Guess("dark", 1, 0.5), Guess("bright", 0, 0.25))
    assert len(one.top(9)) == 3


def test_a_pre_trained_model_is_refused_with_what_to_do(tmp_path: Path, test_set: Path) -> None:
    model = load(pretrained_run(tmp_path / "pre"), device="cpu")
    with pytest.raises(ValueError, match=r"fine-tune it first .*tubelet embed") as error:
        predict(model, unlabelled(test_set), progress=Quiet())
    assert "\n" not in str(error.value)
