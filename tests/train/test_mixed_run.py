"""Runs on several sources: stopped and continued they are the same, and they tell what each source gives."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
import yaml
from ranks import run_ranks
from safetensors.torch import load_file
from toy_labelled import LEVELS, labelled_folder, toy_recipe
from toy_labelled import write_video as write_grey
from toy_run import Notes, killer, log_lines, pretrain_recipe, records
from video_files import write_video

from tubelet.eval.evaluate import ClassEvaluation, evaluate
from tubelet.nn.mixing import Mixing
from tubelet.recipe import (
    Data,
    FinetuneRecipe,
    LabelledData,
    LabelledSource,
    PretrainRecipe,
    Schedule,
    VideoSource,
    override,
)
from tubelet.runs.finetune import finetune
from tubelet.runs.pretrain import pretrain
from tubelet.sets.unlabelled import unlabelled_sources, videos_of_epoch
from tubelet.spec import replace
from tubelet.train.distributed.signals import Interrupted


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of short videos, and one with two longer ones and a broken file."""
    folder = tmp_path_factory.mktemp("videos")
    for index in range(6):
        write_video(folder / "short" / f"{index}.mp4", 12 + index)
        write_video(folder / "other" / f"{index}.mp4", 14)
    for index in range(2):
        write_video(folder / "movies" / f"{index}.mp4", 40)
    (folder / "movies/broken.mp4").write_bytes(b"no video at all" * 20)
    return folder


def mixed(videos: Path, *changes: str, **options: object) -> PretrainRecipe:
    """6 + 3 + 2 x 2 pieces + the broken file = 14 videos an epoch; 3 steps of 4."""
    sources = [
        {"videos": str(videos / "short")},
        {"videos": str(videos / "other"), "weight": 0.5, "sampler": {"kind": "strided", "stride": 2}},
        {"videos": str(videos / "movies"), "segment_seconds": 0.8, **options},
    ]
    fixed = ("data.videos=null", f"data.sources={yaml.safe_dump(sources, default_flow_style=True, width=10000)}")
    return override(pretrain_recipe(), [*fixed, "data.sampler.stride=1", "optim.lr=0.1", *changes])


def assert_same_run(one: Path, other: Path) -> None:
    assert log_lines(one) == log_lines(other)
    assert (one / "skipped.csv").read_text() == (other / "skipped.csv").read_text()
    left, right = (load_file(out / "model/model.safetensors") for out in (one, other))
    assert all(value.equal(right[name]) for name, value in left.items())


def test_a_stopped_run_goes_on_bit_for_bit_and_says_what_it_mixes(videos: Path, tmp_path: Path) -> None:
    recipe, notes = mixed(videos), Notes()
    pretrain(recipe, tmp_path / "whole", notes)
    said = "\n".join(notes.lines)
    assert "source short: 6 videos, weight 1: 6 an epoch, 42.9% of it" in said
    assert "source other: 6 videos, weight 0.5: 3 an epoch, 21.4% of it" in said
    assert "source movies: 3 files in 5 pieces of about 0.8 s" in said
    assert re.search(r"source movies: 1 files stay in one piece, .*broken\.mp4: cannot be opened", said)
    assert re.search(r"skipped .*broken\.mp4 \(source movies, 1 skipped so far\)", said)
    assert notes.facts[0].videos == 14
    assert len(records(tmp_path / "whole")) == 9
    rows = (tmp_path / "whole/skipped.csv").read_text().splitlines()
    assert rows[0] == "path,reason,first_step,source"
    assert len(rows) == 2
    assert rows[1].endswith(",movies")
    with pytest.raises(Interrupted):
        pretrain(recipe, tmp_path / "parts", Notes(act=killer(5, signal.SIGTERM)))
    pretrain(override(recipe, ["data.workers=1"]), tmp_path / "parts", Notes())
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    with pytest.raises(ValueError, match=r"holds a run of another recipe.*data\.sources"):
        pretrain(mixed(videos, weight=2), tmp_path / "parts", Notes())


def test_one_source_is_the_run_on_its_folder(videos: Path, tmp_path: Path) -> None:
    folder = videos / "short"
    plain = override(pretrain_recipe(), [f"data.videos={folder}", "data.views=2"])
    pretrain(plain, tmp_path / "plain", Notes())
    alone = override(plain, ["data.videos=null", f"data.sources=[{{videos: {folder}}}]"])
    pretrain(alone, tmp_path / "alone", Notes())
    assert log_lines(tmp_path / "plain") == log_lines(tmp_path / "alone")


def test_too_many_unreadable_videos_stop_a_mixture_too(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"1 of 17 videos cannot be read, more than data\.max_skipped=0\.01"):
        pretrain(mixed(videos, "data.max_skipped=0.01"), tmp_path, Notes())


def test_paths_of_a_list_start_from_the_root_of_its_source_else_from_that_of_all(videos: Path, tmp_path: Path) -> None:
    lists = {}
    for name in ("short", "other"):
        lists[name] = tmp_path / f"{name}.txt"
        lists[name].write_text("0.mp4\n1.mp4\n")
    own = VideoSource(videos=str(lists["other"]), root=str(videos / "other"))
    data = Data(sources=(VideoSource(videos=str(lists["short"])), own), root=str(videos / "short"))
    found = [video.path for source in unlabelled_sources(data, Notes().say) for video in source.videos]
    assert found == [videos / folder / name for folder in ("short", "other") for name in ("0.mp4", "1.mp4")]


def test_a_plan_counts_the_videos_of_an_epoch(videos: Path) -> None:
    assert videos_of_epoch(mixed(videos), Notes().say) == 14
    assert videos_of_epoch(override(pretrain_recipe(), [f"data.videos={videos / 'short'}"]), Notes().say) == 6
    assert videos_of_epoch(override(pretrain_recipe(), ["data.videos=null"]), Notes().say) is None


def test_a_plan_counts_labelled_videos_of_an_epoch(labelled: Path) -> None:
    assert videos_of_epoch(hybrid(labelled), Notes().say) == 18
    assert videos_of_epoch(toy_recipe(), Notes().say) is None


def test_bad_sources_are_refused_before_anything_is_written(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder, message in ((tmp_path / "empty", "no videos in this folder"), (tmp_path / "no", "no such file")):
        recipe = override(pretrain_recipe(), ["data.videos=null", f"data.sources=[{{videos: {folder}}}]"])
        with pytest.raises(ValueError, match=message):
            pretrain(recipe, tmp_path / "run", Notes())
    little = override(mixed(videos), [f"data.sources=[{{videos: {videos / 'short'}, weight: 0.01}}]"])
    with pytest.raises(ValueError, match=r"source short: weight 0\.01 of 6 videos leaves none"):
        pretrain(little, tmp_path / "run", Notes())
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`home` has bright and dark videos, `gym` Dark and grey ones."""
    folder = tmp_path_factory.mktemp("labelled")
    labelled_folder(folder / "home", each=6)
    for name, level in {"Dark": LEVELS["dark"], "grey": 125}.items():
        for number in range(6):
            write_grey(folder / "gym" / name / f"{number}.mp4", level, seed=50 * level + number)
    return folder


def hybrid(labelled: Path) -> FinetuneRecipe:
    recipe = toy_recipe(schedule=Schedule(epochs=3, warmup_epochs=1), ema=0.5, mixing=Mixing())
    sources = (
        LabelledSource(train=str(labelled / "home"), val=str(labelled / "home")),
        LabelledSource(train=str(labelled / "gym"), val=str(labelled / "gym"), weight=0.5),
    )
    return replace(recipe, data=replace(recipe.data, sources=sources, val=None, train=None))


def test_a_labelled_hybrid_learns_merged_classes_and_looks_at_each_source(labelled: Path, tmp_path: Path) -> None:
    recipe, notes = hybrid(labelled), Notes()
    model = finetune(recipe, tmp_path / "whole", notes)
    assert (model / "classes.txt").read_text().split() == ["bright", "dark", "grey"]
    assert any("source gym: 12 videos, weight 0.5: 6 an epoch, 33.3% of it" in line for line in notes.lines)
    looks = [record["evaluation"] for record in records(tmp_path / "whole") if "evaluation" in record]
    assert len(looks) == 3
    for look in looks:
        assert set(look) == {"accuracy", "best_accuracy", "accuracy_home", "accuracy_gym"}
        assert look["accuracy"] == pytest.approx((look["accuracy_home"] + look["accuracy_gym"]) / 2)
    found = evaluate(tmp_path / "whole", labelled / "gym", watch=notes, clips=1, crops=1)
    assert isinstance(found, ClassEvaluation)
    assert {row.name for row in found.classes if row.videos} == {"dark", "grey"}
    (labelled / "numbers.csv").write_text("gym/grey/0.mp4 2\nhome/dark/0.mp4 1\n")
    assert evaluate(tmp_path / "whole", labelled / "numbers.csv", watch=notes, clips=1, crops=1).videos == 2
    assert "numbers.csv: its numbers are taken for lines of classes.txt" in notes.lines[-3] + notes.lines[-2]
    with pytest.raises(Interrupted):
        finetune(recipe, tmp_path / "parts", Notes(act=killer(4, signal.SIGTERM)))
    finetune(recipe, tmp_path / "parts", Notes())
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_single_labelled_source_is_the_run_on_its_folder(labelled: Path, tmp_path: Path) -> None:
    recipe = toy_recipe(schedule=Schedule(epochs=2, warmup_epochs=1))
    home = str(labelled / "home")
    plain = replace(recipe, data=replace(recipe.data, train=home, val=home))
    alone = replace(recipe, data=LabelledData.model_validate(
        {**recipe.data.model_dump(), "sources": [{"train": home, "val": home}]}
    ))  # fmt: skip
    for name, one in {"plain": plain, "alone": alone}.items():
        finetune(one, tmp_path / name, Notes())
    assert log_lines(tmp_path / "plain") == log_lines(tmp_path / "alone")


def test_two_ranks_take_the_videos_of_one_process(videos: Path, tmp_path: Path) -> None:
    recipe = mixed(videos, "model.encoder.drop_path=0")
    pretrain(recipe, tmp_path / "one", Notes())

    def on_rank(rank: int) -> None:
        pretrain(recipe, tmp_path / "two", Notes())

    ranks = run_ranks(2, on_rank, tmp_path / "said")
    assert [one.code for one in ranks] == [0, 0], ranks
    losses = [[record["loss"] for record in records(tmp_path / run)] for run in ("one", "two")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    assert (tmp_path / "one/skipped.csv").read_text() == (tmp_path / "two/skipped.csv").read_text()
