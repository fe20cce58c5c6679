"""Searching: a clip finds itself, the sheet shows what was found."""

from __future__ import annotations

import shutil
from dataclasses import replace as changed
from pathlib import Path

import numpy as np
import pytest
from toy_embed import SETTINGS, toy_run, toy_videos

from tubelet.inference.embed.embed import embed
from tubelet.inference.embed.store import Embeddings, read_embeddings
from tubelet.inference.model import Model, load
from tubelet.inference.search import search as searching
from tubelet.inference.search.contact_sheet import FRAMES, GREY, TILE_HEIGHT, TILE_WIDTH, sheet, shortened, span
from tubelet.inference.search.search import Choice, Hits, search, similarities
from tubelet.pictures.strips import write_png
from tubelet.video.lists.manifest import read_manifest


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(toy_run(tmp_path_factory.mktemp("run")), device="cpu")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="module")
def store(model: Model, videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Embeddings:
    out = tmp_path_factory.mktemp("store") / "e.parquet"
    embed(model, read_manifest(videos, labelled=False), out, SETTINGS)
    return read_embeddings(out)


def found_rows(found: Hits) -> list[tuple[str, int]]:
    return [(hit.name, hit.clip) for hit in found.hits]


def test_every_stored_video_finds_itself_first(model: Model, videos: Path, store: Embeddings) -> None:
    for name in sorted(set(store.paths)):
        found = search(videos / name, store, model, Choice(k=1))
        assert found.hits[0].name == name
        assert found.hits[0].score == pytest.approx(1.0, abs=1e-6)
        assert found.hits[0].query_clip == found.hits[0].clip


def test_one_window_finds_itself_and_then_others_in_falling_order(
    model: Model, videos: Path, store: Embeddings
) -> None:
    found = search(videos / "5.mp4", store, model, Choice(k=len(store) + 5, at_seconds=0.6))
    assert [window.clip for window in found.windows] == [1]
    first = found.hits[0]
    assert (first.name, first.clip, first.rank) == ("5.mp4", 1, 1)
    assert (first.start_seconds, first.end_seconds) == (found.windows[0].start_seconds, found.windows[0].end_seconds)
    assert first.score == pytest.approx(1.0, abs=1e-6)
    scores = [hit.score for hit in found.hits]
    assert scores == sorted(scores, reverse=True)
    assert scores[1] < 1 - 1e-6
    assert sorted(hit.row for hit in found.hits) == list(range(len(store)))
    assert all((store.paths[hit.row], store.clips[hit.row]) == (hit.name, hit.clip) for hit in found.hits)


def test_of_each_video_only_the_best_clip_where_asked(model: Model, videos: Path, store: Embeddings) -> None:
    every = search(videos / "4.mp4", store, model, Choice(k=len(store)))
    once = search(videos / "4.mp4", store, model, Choice(k=4, one_per_video=True))
    best: dict[str, int] = {}
    for hit in every.hits:
        best.setdefault(hit.name, hit.clip)
    assert found_rows(once) == list(best.items())[:4]
    assert [hit.rank for hit in once.hits] == [1, 2, 3, 4]


def test_scores_are_the_best_cosines_and_do_not_depend_on_the_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    stored, query = (rng.standard_normal((count, 6)).astype(np.float32) for count in (23, 3))
    stored[7] = 0
    lengths = np.maximum(np.linalg.norm(stored, axis=1), 1e-9)[:, None] * np.linalg.norm(query, axis=1)
    cosines = (stored @ query.T).astype(np.float64) / lengths
    for rows in (1, 5, 23, 100):
        monkeypatch.setattr(searching, "ROWS_AT_ONCE", rows)
        scores, best = similarities(stored, query)
        assert scores == pytest.approx(cosines.max(1), abs=1e-6)
        assert best.tolist() == cosines.argmax(1).tolist()
        assert scores[7] == 0


def test_equal_scores_keep_the_order_of_the_store(model: Model, videos: Path, store: Embeddings) -> None:
    same = changed(store, vectors=np.repeat(store.vectors[:1], len(store), axis=0))
    found = search(videos / "0.mp4", same, model, Choice(k=5))
    assert [hit.row for hit in found.hits] == [0, 1, 2, 3, 4]


def test_mistakes_are_one_line(model: Model, videos: Path, store: Embeddings, tmp_path: Path) -> None:
    other = load(toy_run(tmp_path / "other", seed=1), device="cpu")
    with pytest.raises(ValueError, match=rf"made with another model .*: {store.facts.model} .* not {other.file}"):
        search(videos / "0.mp4", store, other)
    change = load(Path(store.facts.model), device="cpu", pooling="change")
    with pytest.raises(ValueError, match="made with pooling 'mean', the model has 'change'"):
        search(videos / "0.mp4", store, change)
    (tmp_path / "bad.mp4").write_text("text")
    with pytest.raises(ValueError, match=r"bad\.mp4: cannot be opened as a video"):
        search(tmp_path / "bad.mp4", store, model)
    with pytest.raises(ValueError, match=r"0\.mp4: nothing is shown at 9 s; the video ends at 0\.40 s"):
        search(videos / "0.mp4", store, model, Choice(at_seconds=9))
    columns = ("clips", "start_seconds", "end_seconds", "vectors")
    empty = changed(store, paths=(), **{name: getattr(store, name)[:0] for name in columns})
    with pytest.raises(ValueError, match="no embeddings to search in"):
        search(videos / "0.mp4", empty, model)


def grey_tiles(picture: np.ndarray) -> int:
    """Tiles that are grey all over, counted along the middle of each strip."""
    rows = (picture == GREY).all(2).sum(1) >= FRAMES * TILE_WIDTH
    return int(rows.sum()) // TILE_HEIGHT


def test_the_sheet_has_a_strip_for_the_query_and_each_hit(
    model: Model, videos: Path, store: Embeddings, tmp_path: Path
) -> None:
    three = search(videos / "2.mp4", store, model, Choice(k=3))
    one = changed(three, hits=three.hits[:1])
    picture, small = sheet(three, videos), sheet(one, videos)
    assert picture.dtype == np.uint8
    strip = (picture.shape[0] - small.shape[0]) / 2
    assert strip > TILE_HEIGHT
    assert small.shape[0] == 2 * strip + 2
    assert grey_tiles(picture) == 0
    top = slice(20, 20 + TILE_HEIGHT)
    query, itself = picture[: int(strip)][top], picture[int(strip) + 2 :][top]
    assert np.array_equal(query, itself)  # the first hit is the query's own clip
    write_png(picture, tmp_path / "new" / "sheet.png")
    assert (tmp_path / "new" / "sheet.png").stat().st_size > 1000


def test_a_hit_whose_file_is_gone_or_damaged_is_grey(
    model: Model, videos: Path, store: Embeddings, tmp_path: Path
) -> None:
    folder = tmp_path / "moved"
    shutil.copytree(videos, folder)
    found = search(videos / "2.mp4", store, model, Choice(k=4, one_per_video=True))
    (folder / found.hits[1].name).unlink()
    (folder / found.hits[3].name).write_text("text")
    assert grey_tiles(sheet(found, folder)) == 2


def test_a_long_path_loses_its_middle() -> None:
    name = "a-very-long-folder/" * 6 + "video_000123.mp4"
    assert len(shortened(name, 40)) == 40
    assert shortened(name, 40).startswith("a-very-long-")
    assert shortened(name, 40).endswith("/video_000123.mp4")
    assert shortened("short.mp4", 40) == "short.mp4"


def test_times_are_told_as_people_read_them() -> None:
    assert span(0.0, 2.5) == "0.00 s - 2.50 s"
    assert span(3661.25, 3663.0) == "1:01:01.2 - 1:01:03.0"
