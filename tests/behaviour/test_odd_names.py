"""Files whose names are not UTF-8, or hold a line break: every command finishes, and names them on one line."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import pytest
from toy_embed import toy_run, toy_videos
from toy_labelled import labelled_folder, toy_recipe, write_video
from toy_run import Notes, ToySet, pretrain_recipe

from tubelet.cli import main
from tubelet.data.cache import FrameCache
from tubelet.data.dataset import Skipped
from tubelet.data.streams import StreamSet
from tubelet.inference.embed.store import read_embeddings
from tubelet.names import one_line, restored, writable
from tubelet.recipe import override
from tubelet.recipe.text import write_recipe
from tubelet.rng import step_rng
from tubelet.runs.finetune import finetune, write_classifier
from tubelet.spec import replace
from tubelet.train.records.skips import Skips
from tubelet.video.lists.manifest import read_manifest

NOT_UTF8 = os.fsdecode(b"a\xff.mp4")
BROKEN_LINE = "b\nro ken\x1b.mp4"
SHOWN = {NOT_UTF8: r"a\udcff.mp4", BROKEN_LINE: r"b\nro ken\x1b.mp4"}
ODD = pytest.mark.parametrize("odd", [NOT_UTF8, BROKEN_LINE], ids=["not-utf8", "two-lines"])


@pytest.fixture(autouse=True)
def _takes_odd_names(tmp_path: Path) -> None:
    try:
        for name in SHOWN:
            (tmp_path / f"probe-{name}").touch()
            (tmp_path / f"probe-{name}").unlink()
    except (OSError, UnicodeError):
        pytest.skip("the file system refuses such names")


@pytest.fixture(scope="module")
def fine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of random weights."""
    recipe, folder = toy_recipe(classes=2), tmp_path_factory.mktemp("fine")
    with step_rng(0, 0):
        write_classifier(folder, recipe, recipe.model.build(recipe.clip, 2), ("bright", "dark"))
    return folder


@pytest.fixture(scope="module")
def pre(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_run(tmp_path_factory.mktemp("pre") / "run")


def tubelet(*words: str | Path) -> int:
    """The exit code."""
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return int(stop.value.code or 0)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def strictly(path: Path) -> object:
    """JSON whose texts are UTF-8 for every reader, not for Python alone."""
    found: object = json.loads(path.read_text(encoding="utf-8"))
    json.dumps(found, ensure_ascii=False).encode("utf-8")
    return found


def with_broken(folder: Path, odd: str, *, good: int = 3) -> Path:
    """Videos that can be read, and one of an odd name that cannot."""
    for number in range(good):
        write_video(folder / f"{number}.mp4", 100, seed=number)
    (folder / odd).write_bytes(b"no video")
    return folder


@pytest.mark.parametrize("text", ["a.mp4", "ä/ö 1.mp4", NOT_UTF8, BROKEN_LINE, "\ud800", "\x85\u2028x\t\x7f"])
def test_what_leaves_the_program_is_utf8_and_messages_are_one_line(text: str) -> None:
    assert writable(text).encode("utf-8").decode("utf-8") == writable(text)
    assert one_line(text).encode("utf-8").decode("utf-8") == one_line(text)
    assert len(one_line(text).splitlines()) == 1
    assert "\x1b" not in one_line(text)
    if text.isprintable():
        assert text == writable(text) == one_line(text)


@pytest.mark.parametrize("text", ["ä/ö 1.mp4", NOT_UTF8, BROKEN_LINE])
def test_a_written_name_leads_back_to_the_file(text: str) -> None:
    assert restored(writable(text)) == text


@ODD
def test_pretraining_goes_on_and_names_the_broken_file(
    odd: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos, recipe, out = with_broken(tmp_path / "v", odd), tmp_path / "recipe.yaml", tmp_path / "run"
    write_recipe(override(pretrain_recipe("data.max_skipped=0.5"), [f"data.videos={videos}"]), recipe)
    assert tubelet("pretrain", recipe, "--out", out) == 0
    (row,) = rows(out / "skipped.csv")
    assert row["path"] == writable(str(videos / odd))
    said = capsys.readouterr().err.splitlines()
    assert sum(f"skipped {videos}/{SHOWN[odd]}: " in line for line in said) == 1
    read_again = Skips(out, (StreamSet("video", ToySet(count=4), 4, max_skipped=0.5),), step=99)
    assert len(read_again) == 1
    assert not read_again.note([Skipped(3, odd, videos / odd, "broken")], 100)
    assert rows(out / "skipped.csv") == [row]


def test_a_run_folder_that_others_cannot_read_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, out = tmp_path / "recipe.yaml", tmp_path / os.fsdecode(b"r\xff")
    write_recipe(override(pretrain_recipe(), [f"data.videos={with_broken(tmp_path / 'v', 'b.mp4')}"]), recipe)
    assert tubelet("pretrain", recipe, "--out", out) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(rf"tubelet: {tmp_path}/r\udcff: the path of a run folder must be UTF-8")
    assert not out.exists()


@ODD
def test_a_frame_cache_takes_such_videos(odd: str, tmp_path: Path) -> None:
    write_video(tmp_path / "0.mp4", 100, seed=0)
    video = (tmp_path / "0.mp4").rename(tmp_path / odd)
    cache = FrameCache(tmp_path / "cache", short_side=None)
    first, again = cache.frames(video), cache.frames(video)
    assert first is not None
    assert again is not None
    assert (first == again).all()


@ODD
def test_check_prints_the_table_and_writes_the_whole_csv(
    odd: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos, table = with_broken(tmp_path / "v", odd), tmp_path / "t.csv"
    assert tubelet("check", videos, "--csv", table, "--workers", "1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6  # a head, a line for each file, the sum
    assert sum(line.startswith(SHOWN[odd]) and "broken" in line for line in lines) == 1
    found = {row["file"]: row["readable"] for row in rows(table)}
    assert found == {"0.mp4": "yes", "1.mp4": "yes", "2.mp4": "yes", writable(odd): "no"}


@ODD
def test_evaluation_writes_every_row(odd: str, fine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test = labelled_folder(tmp_path / odd.removesuffix(".mp4"), each=2)
    shutil.copy(test / "dark/0.mp4", test / "dark" / odd)
    (test / "bright" / odd).write_bytes(b"no video")
    words: list[str | Path] = ["evaluate", fine, test, "--clips", "1", "--crops", "1", "--out", tmp_path / "out"]
    assert tubelet(*words) == 2
    assert f"bright/{SHOWN[odd]}: " in capsys.readouterr().err.splitlines()[-1]
    assert tubelet(*words, "--allow-missing") == 0
    found = {row["path"]: row["missing"] for row in rows(tmp_path / "out/predictions.csv")}
    assert len(found) == 6
    assert found[f"bright/{writable(odd)}"]
    assert not found[f"dark/{writable(odd)}"]
    facts = strictly(tmp_path / "out/metrics.json")
    assert isinstance(facts, dict)
    assert [one["path"] for one in facts["missing"]] == [f"bright/{writable(odd)}"]


@ODD
@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_predictions_name_the_video(
    odd: str, form: str, fine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos, out = with_broken(tmp_path / "v", odd, good=1), tmp_path / "out"
    shutil.copy(videos / "0.mp4", videos / f"good-{odd}")
    assert tubelet("predict", videos, "--from", fine, "--format", form, "-o", out, "--clips", "1") == 2
    assert f"{videos}/{SHOWN[odd]}: " in capsys.readouterr().err
    if form == "table":
        lines = out.read_text(encoding="utf-8").splitlines()
        assert len(lines) == 4  # a head, a line for each file
        assert sum(f"good-{SHOWN[odd]} " in line for line in lines) == 1
    if form == "csv":
        assert {Path(row["path"]).name for row in rows(out)} == {"0.mp4", writable(odd), writable(f"good-{odd}")}
    if form == "json":
        strictly(out)


@ODD
def test_embedding_keeps_every_row_and_search_finds_the_file(
    odd: str, pre: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos, out = toy_videos(tmp_path / "v", 3), tmp_path / "e.parquet"
    (videos / "2.mp4").rename(videos / odd)
    (videos / f"z{odd}").write_bytes(b"no video")
    words: list[str | Path] = ["embed", videos, "--from", pre, "-o", out, "--window", "0.4", "--device", "cpu"]
    assert tubelet(*words) == 0
    assert f"skipped z{SHOWN[odd]}: " in capsys.readouterr().err
    assert set(read_embeddings(out).paths) == {"0.mp4", "1.mp4", writable(odd)}
    assert [row["path"] for row in rows(tmp_path / "e.skipped.csv")] == [writable(f"z{odd}")]
    assert tubelet(*words) == 0
    assert "finished before" in capsys.readouterr().err
    files = {name: tmp_path / f"s.{name}" for name in ("png", "json", "csv")}
    words = ["search", videos / odd, "--in", out, "-o", files["png"], "--json", files["json"], "--csv", files["csv"]]
    assert tubelet(*words, "--device", "cpu", "-k", "1") == 0
    assert SHOWN[odd] in capsys.readouterr().out
    assert [row["name"] for row in rows(files["csv"])] == [writable(odd)]
    strictly(files["json"])


@ODD
def test_a_class_keeps_its_name_from_training_to_test(odd: str, tmp_path: Path) -> None:
    recipe, name = toy_recipe(), odd.removesuffix(".mp4")
    recipe = replace(recipe, schedule=replace(recipe.schedule, epochs=1, warmup_epochs=0))
    for part in ("train", "val"):
        (labelled_folder(tmp_path / part, each=4) / "bright").rename(tmp_path / part / name)
    finetune(replace(recipe, data=replace(recipe.data, train=str(tmp_path / "train"))), tmp_path / "fine", Notes())
    shown = SHOWN[odd].removesuffix(".mp4")
    assert (tmp_path / "fine/model/classes.txt").read_text(encoding="utf-8").splitlines() == [shown, "dark"]
    out = tmp_path / "out"
    assert tubelet("evaluate", tmp_path / "fine", tmp_path / "val", "--clips", "1", "--crops", "1", "--out", out) == 0
    assert [row["name"] for row in rows(out / "classes.csv")] == [shown, "dark"]


@ODD
def test_prepared_videos_lead_back_to_their_sources(odd: str, tmp_path: Path) -> None:
    videos, out = with_broken(tmp_path / "v", odd, good=2), tmp_path / "out"
    shutil.copy(videos / "0.mp4", videos / f"good-{odd}")
    for _ in range(2):  # the second time reads all of it back
        assert tubelet("prepare", videos, out, "--workers", "1", "--max-skipped", "0.5") == 0
        assert len(read_manifest(out / "v.csv", labelled=False).videos) == 3
        assert writable(str(videos / f"good-{odd}")) in {row["source"] for row in rows(out / "sources.csv")}
        assert [row["path"] for row in rows(out / "skipped.csv")] == [writable(str(videos / odd))]


@pytest.mark.parametrize("ending", ["txt", "csv", "jsonl"])
def test_a_list_names_files_by_their_bytes(ending: str, tmp_path: Path) -> None:
    write_video(tmp_path / "0.mp4", 100, seed=0)
    (tmp_path / "0.mp4").rename(tmp_path / NOT_UTF8)
    line = json.dumps({"path": NOT_UTF8}).encode() if ending == "jsonl" else os.fsencode(NOT_UTF8)
    (tmp_path / f"list.{ending}").write_bytes(line + b"\n")
    (video,) = read_manifest(tmp_path / f"list.{ending}", labelled=False).videos
    assert video.path == tmp_path / NOT_UTF8
    assert video.path.is_file()
