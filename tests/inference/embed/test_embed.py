"""Embedding a set: equal bytes whoever does it and however often it is stopped; bad videos; other plans."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_embed
from toy_embed import SETTINGS, UNIT, Notes, damage, killer, toy_run, toy_videos

from tubelet.inference.embed import embed as embedding
from tubelet.inference.embed.embed import Embedded, Settings, Stopped, embed
from tubelet.inference.embed.store import read_embeddings
from tubelet.inference.embed.windows import Windows, read_windows
from tubelet.inference.embed.work_units import WorkUnits, read_skipped, skipped_file
from tubelet.inference.model import Model, load
from tubelet.spec import replace
from tubelet.video.lists.manifest import Manifest, read_manifest
from tubelet.video.sample import Strided

CLIPS = 16
"""Windows of 0.4 s in the seven toy videos."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def model(run: Path) -> Model:
    return load(run, device="cpu")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "VIDEOS_A_UNIT", UNIT)


@pytest.fixture(scope="module")
def expected(model: Model, videos: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What one uninterrupted run with one thread writes."""
    out = tmp_path_factory.mktemp("expected") / "e.parquet"
    before, embedding.VIDEOS_A_UNIT = embedding.VIDEOS_A_UNIT, UNIT  # type: ignore[misc]
    try:
        embed(model, listed(videos), out, replace(SETTINGS, threads=1))
    finally:
        embedding.VIDEOS_A_UNIT = before  # type: ignore[misc]
    return out.read_bytes()


def listed(source: Path) -> Manifest:
    return read_manifest(source, labelled=False)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_rows_are_the_windows_of_the_videos_and_the_models_vectors(model: Model, videos: Path, tmp_path: Path) -> None:
    out, notes = tmp_path / "deep" / "e.parquet", Notes()
    result = embed(model, listed(videos), out, SETTINGS, notes)
    found = read_embeddings(out)
    at = 0
    for video in listed(videos).videos:
        for window in read_windows(video.path, clip=model.clip, sampler=model.sampler, windows=SETTINGS.windows):
            assert (found.paths[at], found.clips[at]) == (video.name, window.clip)
            assert (found.start_seconds[at], found.end_seconds[at]) == (window.start_seconds, window.end_seconds)
            assert np.allclose(found.vectors[at], model.pool(window.video)[0].numpy(), rtol=1e-5, atol=1e-6)
            at += 1
    assert at == len(found) == CLIPS
    assert result == Embedded(out, CLIPS, 7, CLIPS, (), result.seconds)
    assert (notes.begun, notes.done, notes.clips, notes.ended) == ([("embed", 7, "videos")], 7, CLIPS, 1)
    assert names_in(out.parent) == ["e.parquet", "e.skipped.csv"]
    assert skipped_file(out).read_text() == "path,reason\n"


def test_the_file_says_what_it_was_made_of(model: Model, videos: Path, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "e.parquet"
    embed(model, listed(videos), out, SETTINGS)
    facts = read_embeddings(out).facts
    assert (facts.fingerprint, facts.recipe, facts.width, facts.clip) == (model.fingerprint, "toy", 24, model.clip)
    assert (facts.windows, facts.sampler, facts.precision) == (SETTINGS.windows, model.sampler, "fp32")
    assert (facts.source, facts.root, facts.videos) == (str(videos), str(videos), 7)
    assert load(Path(facts.model), device="cpu").fingerprint == facts.fingerprint


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_twice_and_with_any_number_of_threads_the_bytes_are_the_same(
    model: Model, videos: Path, tmp_path: Path, expected: bytes, threads: int
) -> None:
    out = tmp_path / "e.parquet"
    embed(model, listed(videos), out, replace(SETTINGS, threads=threads))
    assert out.read_bytes() == expected


def test_running_again_does_nothing_but_say_so(model: Model, videos: Path, tmp_path: Path, expected: bytes) -> None:
    out = tmp_path / "e.parquet"
    embed(model, listed(videos), out, SETTINGS)
    before, notes = out.stat().st_mtime_ns, Notes()
    result = embed(model, listed(videos), out, replace(SETTINGS, threads=1), notes)
    assert (result.clips, result.rows, result.out) == (0, CLIPS, out)
    assert notes.lines == [f"{out}: finished before, nothing to do"]
    assert (out.stat().st_mtime_ns, out.read_bytes()) == (before, expected)
    assert names_in(tmp_path) == ["e.parquet", "e.skipped.csv"]


@pytest.mark.parametrize("after", [1, 8, CLIPS])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_between_batches_and_the_next_run_goes_on(
    model: Model, videos: Path, tmp_path: Path, expected: bytes, after: int, number: int
) -> None:
    out, threads = tmp_path / "e.parquet", threading.active_count()
    notes = Notes(killer(after, number))
    if after < CLIPS:
        with pytest.raises(Stopped, match="run the same command again to go on") as stop:
            embed(model, listed(videos), out, SETTINGS, notes)
        assert stop.value.signal == number
        assert not out.exists()
        assert notes.ended == 1
        assert threading.active_count() == threads
        kept = len(WorkUnits(out).finished())
        assert kept == {1: 0, 8: 2}[after]
        notes = Notes()
        embed(model, listed(videos), out, SETTINGS, notes)
        assert notes.begun == [("embed", 7 - kept * UNIT, "videos")]
    else:  # nothing is left to stop
        embed(model, listed(videos), out, SETTINGS, notes)
    assert out.read_bytes() == expected


def test_a_killed_run_goes_on_to_the_same_bytes(
    model: Model, run: Path, videos: Path, tmp_path: Path, expected: bytes
) -> None:
    out = tmp_path / "e.parquet"
    command = [sys.executable, toy_embed.__file__, videos, run, out, "9", str(int(signal.SIGKILL))]
    assert subprocess.run([str(word) for word in command], timeout=120).returncode == -signal.SIGKILL
    assert not out.exists()
    assert len(WorkUnits(out).finished()) == 2
    embed(model, listed(videos), out, SETTINGS)
    assert out.read_bytes() == expected
    assert names_in(tmp_path) == ["e.parquet", "e.skipped.csv"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_the_last_shard_puts_the_file_together(
    model: Model, videos: Path, tmp_path: Path, expected: bytes, order: tuple[int, ...]
) -> None:
    out = tmp_path / "e.parquet"
    results = [embed(model, listed(videos), out, replace(SETTINGS, shard=(index, 3))) for index in order]
    assert [result.out for result in results] == [None, None, out]
    assert sum(result.clips for result in results) == CLIPS
    assert out.read_bytes() == expected
    again = embed(model, listed(videos), out, replace(SETTINGS, shard=(0, 3)))
    assert (again.clips, again.rows) == (0, CLIPS)
    assert names_in(tmp_path) == ["e.parquet", "e.skipped.csv"]


def test_shards_at_the_same_time_give_the_same_bytes(
    model: Model, videos: Path, tmp_path: Path, expected: bytes
) -> None:
    out = tmp_path / "e.parquet"
    found: list[Embedded] = []
    crew = [
        threading.Thread(
            target=lambda shard=index: found.append(
                embed(model, listed(videos), out, replace(SETTINGS, shard=(shard, 4)))
            )
        )
        for index in range(4)
    ]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    assert len(found) == 4
    assert sum(result.clips for result in found) == CLIPS
    assert out.read_bytes() == expected


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("place", [0, 3, 6])
def test_a_damaged_video_is_listed_with_none_of_its_clips_and_the_rest_is_there(
    model: Model, videos: Path, tmp_path: Path, place: int, batch: int
) -> None:
    folder = tmp_path / "some"
    shutil.copytree(videos, folder)
    damage(folder / f"{place}.mp4")
    settings = replace(SETTINGS, batch=batch)
    out, notes = tmp_path / "e.parquet", Notes()
    result = embed(model, listed(folder), out, settings, notes)
    ((name, reason),) = result.skipped
    assert name == f"{place}.mp4"
    assert "damaged" in reason
    assert notes.lines == [f"skipped {name}: {reason}"]
    assert read_skipped(out) == result.skipped
    found = read_embeddings(out)
    assert sorted(set(found.paths)) == [f"{number}.mp4" for number in range(7) if number != place]
    assert len(found) == result.rows < CLIPS
    assert embed(model, listed(folder), out, settings).skipped == result.skipped  # from a finished file, too


def test_too_many_bad_videos_are_an_error_as_soon_as_they_are_and_the_work_is_kept(
    model: Model, videos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "some"
    shutil.copytree(videos, folder)
    for number in (0, 3, 5):
        (folder / f"{number}.mp4").write_text("<html>")
    out = tmp_path / "e.parquet"
    with pytest.raises(ValueError, match=r"2 of 7 videos cannot be read, more than --max-skipped 0\.25 allows"):
        embed(model, listed(folder), out, SETTINGS)
    assert not out.exists()
    assert [name for name, _ in read_skipped(out)] == ["0.mp4", "3.mp4"]
    notes = Notes()
    result = embed(model, listed(folder), out, replace(SETTINGS, max_skipped=0.5), notes)
    assert notes.begun == [("embed", 3, "videos")]
    assert [name for name, _ in result.skipped] == ["0.mp4", "3.mp4", "5.mp4"]
    at_once = embed(model, listed(folder), tmp_path / "f.parquet", replace(SETTINGS, max_skipped=0.5))
    assert at_once.out is not None
    assert at_once.out.read_bytes() == out.read_bytes()


def test_nothing_readable_is_an_error(model: Model, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_text("text")
    with pytest.raises(ValueError, match="none of the 1 videos can be read"):
        embed(model, listed(tmp_path / "videos"), tmp_path / "e.parquet", replace(SETTINGS, max_skipped=1))


def test_work_of_another_plan_is_not_mixed_with_this_one(
    model: Model, videos: Path, tmp_path: Path, expected: bytes
) -> None:
    out = tmp_path / "e.parquet"
    with pytest.raises(Stopped):
        embed(model, listed(videos), out, SETTINGS, Notes(killer(6, signal.SIGTERM)))
    other = replace(SETTINGS, windows=Windows(seconds=0.5))
    with pytest.raises(ValueError, match=r"holds work of another run \(windows was seconds 0.4, now seconds 0.5\)"):
        embed(model, listed(videos), out, other)
    with pytest.raises(ValueError, match=r"holds work of another run \(batch was 2, now 3\)"):
        embed(model, listed(videos), out, replace(SETTINGS, batch=3))
    stranger = load(toy_run(tmp_path / "other", seed=1), device="cpu")
    with pytest.raises(ValueError, match=r"made with another model, .*start again with --fresh, or choose another -o"):
        embed(stranger, listed(videos), out, SETTINGS)
    embed(model, listed(videos), out, replace(SETTINGS, fresh=True))
    assert out.read_bytes() == expected
    with pytest.raises(ValueError, match=r"is there already, with other content \(windows was"):
        embed(model, listed(videos), out, other)
    assert names_in(tmp_path) == ["e.parquet", "e.skipped.csv", "other"]
    embed(model, listed(videos), out, replace(other, fresh=True))
    assert read_embeddings(out).facts.windows == other.windows


def test_a_video_that_changed_since_is_another_plan(model: Model, videos: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "some", tmp_path / "e.parquet"
    shutil.copytree(videos, folder)
    embed(model, listed(folder), out, SETTINGS)
    os.utime(folder / "3.mp4", (1, 1))
    with pytest.raises(ValueError, match="its videos had other names, sizes or times of change"):
        embed(model, listed(folder), out, SETTINGS)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("e.csv", SETTINGS, "written as a .parquet file"),
        ("e.parquet", replace(SETTINGS, shard=(2, 2)), "counted from 0, so the last is 1/2"),
        ("e.parquet", replace(SETTINGS, shard=(0, 2), fresh=True), "would throw away what other shards did"),
        ("e.parquet", Settings(windows=Windows(step_seconds=1)), "give both"),
        ("file/e.parquet", SETTINGS, "cannot be written"),
    ],
)
def test_mistakes_are_said_before_anything_is_done(
    model: Model, videos: Path, tmp_path: Path, name: str, settings: Settings, message: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=message):
        embed(model, listed(videos), tmp_path / name, settings)
    assert names_in(tmp_path) == ["file"]


def test_a_video_listed_twice_is_refused(model: Model, videos: Path, tmp_path: Path) -> None:
    source = tmp_path / "list.txt"
    source.write_text("1.mp4\n2.mp4\n1.mp4\n")
    with pytest.raises(ValueError, match=r"line 3: 1\.mp4 is already on line 1"):
        embed(model, read_manifest(source, root=videos, labelled=False), tmp_path / "e.parquet", SETTINGS)


def test_another_process_at_the_same_work_is_refused(model: Model, videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "e.parquet"
    with WorkUnits(out).working((0, 1)):
        with pytest.raises(ValueError, match="another process makes it"):
            embed(model, listed(videos), out, SETTINGS)
        with pytest.raises(ValueError, match="another process makes it"):
            embed(model, listed(videos), out, replace(SETTINGS, fresh=True))


def test_a_model_that_gives_no_numbers_is_said_to_be_broken(videos: Path, run: Path, tmp_path: Path) -> None:
    model = load(run, device="cpu")
    with torch.no_grad():
        next(model.encoder.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="vectors that are not finite"):
        embed(model, listed(videos), tmp_path / "e.parquet", SETTINGS)


def test_a_dense_sampler_slides_over_the_video_by_itself(videos: Path, tmp_path: Path) -> None:
    model = load(toy_run(tmp_path / "run", sampler=Strided(stride=2)), device="cpu")
    embed(model, listed(videos), tmp_path / "e.parquet", Settings(batch=4))
    found = read_embeddings(tmp_path / "e.parquet")
    last = [row for row, name in enumerate(found.paths) if name == "6.mp4"]  # 28 frames: windows of 8
    assert found.start_seconds[last].round(2).tolist() == [0.0, 0.32, 0.64, 0.8]
    assert found.end_seconds[last].round(2).tolist() == [0.32, 0.64, 0.96, 1.12]


def test_vectors_of_another_pooling_are_another_plan(run: Path, videos: Path, tmp_path: Path) -> None:
    out, change = tmp_path / "e.parquet", load(run, device="cpu", pooling="change")
    embed(change, listed(videos), out, SETTINGS)
    found = read_embeddings(out)
    assert (found.facts.pooling, found.facts.width) == ("change", 4)  # one step between two, of 2 x 2 places
    (window, *_) = read_windows(videos / "0.mp4", clip=change.clip, sampler=change.sampler, windows=SETTINGS.windows)
    assert np.allclose(found.vectors[0], change.pool(window.video)[0].numpy(), rtol=1e-5)
    with pytest.raises(ValueError, match="pooling was change, now mean"):
        embed(load(run, device="cpu"), listed(videos), out, SETTINGS)
