"""`tubelet embed` and `tubelet search` as a person types them."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from toy_embed import damage, toy_run, toy_videos

from tubelet.cli import main
from tubelet.inference.embed import stream
from tubelet.inference.embed.store import read_embeddings
from tubelet.inference.embed.windows import Window, read_windows

WINDOW = ["--window", "0.4", "--batch", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_run(tmp_path_factory.mktemp("run") / "pre")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = toy_videos(tmp_path_factory.mktemp("videos") / "v", 7)
    damage(folder / "4.mp4")
    return folder


@pytest.fixture(scope="module")
def store(run: Path, videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("store") / "e.parquet"
    assert tubelet("embed", videos, "--from", run, "-o", out, *WINDOW) == 0
    return out


def tubelet(*words: str | Path) -> int:
    """Run the command in this process; its exit code."""
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return int(stop.value.code or 0)


def test_embed_tells_clips_videos_skipped_and_speed(
    run: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "e.parquet"
    assert tubelet("embed", videos, "--from", run, "-o", out, *WINDOW) == 0
    said = capsys.readouterr()
    assert f"13 clips of 7 videos, 1 skipped ({tmp_path / 'e.skipped.csv'})" in said.out
    assert re.search(r"this run: \d+ clips in [\d.]+ s \([\d.]+ clips/s\)", said.out)
    assert f"embeddings: {out}" in said.out
    assert re.search(r"embed: \d+ clips in [\d.]+ s", said.err)
    assert "skipped 4.mp4: damaged" in said.err
    assert "7/7 videos" in said.err
    assert tubelet("embed", videos, "--from", run, "-o", out, *WINDOW) == 0
    assert "finished before, nothing to do" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--shard", "2"], "write it as I/N"),
        (["--shard", "1/2", "--processes", "2"], "exclude each other"),
        (["--shard", "2/2"], "counted from 0"),
        (["--step", "1"], "give both (--window and --step)"),
        (["--max-skipped", "0"], "1 of 7 videos cannot be read, more than --max-skipped 0 allows"),
    ],
)
def test_a_mistake_is_one_line(
    run: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert tubelet("embed", videos, "--from", run, "-o", tmp_path / "e.parquet", "--device", "cpu", *words) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("tubelet: ")
    assert message in last


def test_processes_write_the_same_bytes(
    run: Path, videos: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "e.parquet"
    assert tubelet("embed", videos, "--from", run, "-o", out, *WINDOW, "--processes", "2") == 0
    assert out.read_bytes() == store.read_bytes()
    said = capsys.readouterr()
    assert "13 clips of 7 videos, 1 skipped" in said.out
    assert "skipped 4.mp4: damaged" in said.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.parquet", "e.skipped.csv"]


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_sigterm_ends_in_one_line_even_where_a_file_hangs(
    run: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, is_let_go = read_windows, threading.Event()

    def hangs(path: Path, **options: Any) -> Iterator[Window]:
        if path.name == "6.mp4":
            is_let_go.wait(60)
        yield from read(path, **options)

    monkeypatch.setattr("tubelet.inference.embed.embed.read_windows", hangs)
    monkeypatch.setattr(stream, "GOODBYE_SECONDS", 0.1)
    out, is_over = tmp_path / "e.parquet", threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # for signals that come too early or too late

    def send() -> None:
        while not is_over.wait(0.2):
            if (tmp_path / "e.parquet.parts" / "plan.json").is_file():
                os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        assert tubelet("embed", videos, "--from", run, "-o", out, *WINDOW) == 143
    finally:
        is_over.set()
        is_let_go.set()
        thread.join()
        signal.signal(signal.SIGTERM, before)
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last == f"{out}: stopped by SIGTERM; finished work is kept, run the same command again to go on"


def helpers_of(out: Path) -> list[str]:
    """Processes of this machine that embed to `out`."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if str(out) in words and "--leader" in words:
            found.append(place.name)
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for helpers in /proc")
def test_helpers_stop_when_the_process_that_started_them_is_killed(run: Path, videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "e.parquet"
    words: list[str | Path] = ["embed", videos, "--from", run, "-o", out, *WINDOW, "--processes", "2"]
    command = [sys.executable, "-m", "tubelet", *(str(word) for word in words)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    wait_until(lambda: len(helpers_of(out)) == 2)
    process.kill()
    process.wait()
    wait_until(lambda: not helpers_of(out))


def test_search_shows_a_table_and_writes_what_was_found(
    videos: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {name: tmp_path / f"s.{name}" for name in ("png", "json", "csv")}
    words: list[str | Path] = ["search", videos / "5.mp4", "--in", store, "-k", "3", "-o", files["png"]]
    assert tubelet(*words, "--json", files["json"], "--csv", files["csv"], "--at", "0.5") == 0
    said = capsys.readouterr().out
    rows = list(csv.DictReader(files["csv"].open()))
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert rows[0]["name"] == "5.mp4"
    assert float(rows[0]["score"]) == pytest.approx(1, abs=1e-6)
    assert json.loads(files["json"].read_text())["hits"][0]["name"] == "5.mp4"
    assert re.search(r"1 +1\.0000 +5\.mp4 +0\.\d\d s - \d\.\d\d s", said)
    assert f"sheet: {files['png']}" in said
    assert files["png"].read_bytes().startswith(b"\x89PNG")


def test_search_takes_the_pooling_from_the_embeddings(run: Path, videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "e.parquet"
    assert tubelet("embed", videos, "--from", run, "-o", out, *WINDOW, "--pool", "change") == 0
    words: list[str | Path] = ["search", videos / "6.mp4", "--in", out, "--no-sheet", "--csv", tmp_path / "s.csv"]
    assert tubelet(*words, "--at", "0.2") == 0
    first = next(csv.DictReader((tmp_path / "s.csv").open()))
    assert (first["name"], first["clip"]) == ("6.mp4", "0")


def test_search_needs_no_sheet_and_finds_its_model_again(
    run: Path, videos: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tubelet("search", videos / "5.mp4", "--in", store, "--no-sheet", "-o", tmp_path / "s.png") == 0
    assert not (tmp_path / "s.png").exists()
    capsys.readouterr()
    moved = Path(read_embeddings(store).facts.model)
    moved.rename(tmp_path / "model.safetensors")
    try:
        assert tubelet("search", videos / "5.mp4", "--in", store, "--no-sheet") == 2
        assert f"its model is no longer at {moved}; name it with --from" in capsys.readouterr().err
    finally:
        (tmp_path / "model.safetensors").rename(moved)
    assert tubelet("search", videos / "5.mp4", "--in", store, "--from", run, "--no-sheet") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gone.mp4"], "gone.mp4: no such video file"),
        (["VIDEO", "-o", "sheet.jpg"], "sheet.jpg: the sheet is a .png file"),
        (["VIDEO", "-o", "VIDEO/x.png"], "x.png: cannot be written (5.mp4 is a file); choose another with -o"),
        (["IMAGE"], "a.png: an image, where videos are wanted"),
        (["VIDEO", "--csv", "nowhere/x.csv"], "nowhere: no such folder for the result"),
        (["VIDEO", "--in", "gone.parquet"], "gone.parquet: no such file; tubelet embed makes it"),
    ],
)
def test_mistakes_in_a_search_are_one_line(
    videos: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    (tmp_path / "a.png").touch()
    places = {"VIDEO": str(videos / "5.mp4"), "IMAGE": str(tmp_path / "a.png")}
    words = [re.sub("^(VIDEO|IMAGE)", lambda found: places[found[0]], word) for word in words]
    inside: list[str | Path] = [] if "--in" in words else ["--in", store]
    assert tubelet("search", *words, *inside) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
