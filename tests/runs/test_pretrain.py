"""Pre-training on real, tiny video files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toy_run import Notes, log_lines, pretrain_recipe, records

from tubelet.recipe import PretrainRecipe, override, read_recipe
from tubelet.runs.pretrain import pretrain


def write_video(path: Path, *, seed: int) -> None:
    """12 frames of 48 x 32 pixels, smooth and moving."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[0:32, 0:48]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=12)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for index in range(12):
            grey = 127 + 100 * np.sin((rows * (seed % 3) + columns + 3 * index + 20 * seed) / 9)
            image = np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for index in range(9):
        write_video(folder / f"{index % 2}" / f"{index}.mp4", seed=index)
    (folder / "broken.mp4").write_bytes(b"no video at all" * 20)
    return folder


def recipe_for(videos: Path, changes: Sequence[str] = ()) -> PretrainRecipe:
    fixed = (f"data.videos={videos}", "schedule.epochs=4", "data.sampler={kind: strided, stride: 2}", "optim.lr=0.2")
    return override(pretrain_recipe(), [*fixed, *changes])


def test_a_folder_with_a_broken_file_is_trained_on_and_the_file_is_named(videos: Path, tmp_path: Path) -> None:
    notes = Notes()
    model = pretrain(recipe_for(videos), tmp_path, notes)
    assert model == tmp_path / "model"
    assert read_recipe(model / "recipe.yaml") == read_recipe(tmp_path / "recipe.yaml") == recipe_for(videos)
    losses = [record["loss"] for record in records(tmp_path)]
    assert len(losses) == 8
    assert sum(losses[-3:]) < sum(losses[:3])
    rows = (tmp_path / "skipped.csv").read_text().splitlines()
    assert len(rows) == 2
    assert "broken.mp4" in rows[1]
    assert any("broken.mp4" in line for line in notes.lines)
    assert "encoder.blocks.1.mlp.fc1.weight" in load_file(model / "model.safetensors")


def test_views_workers_and_pieces_of_a_step_do_not_change_who_is_seen(videos: Path, tmp_path: Path) -> None:
    for name, changes in {"plain": [], "workers": ["data.workers=2"]}.items():
        pretrain(recipe_for(videos, ["data.views=2", "run.accumulate=2", *changes]), tmp_path / name, Notes())
    assert log_lines(tmp_path / "plain") == log_lines(tmp_path / "workers")


def test_first_weights_follow_from_the_seed_or_from_the_start(videos: Path, tmp_path: Path) -> None:
    first = pretrain(recipe_for(videos), tmp_path / "first", Notes())
    torch.rand(3)  # what others draw does not matter
    pretrain(recipe_for(videos), tmp_path / "again", Notes())
    assert log_lines(tmp_path / "first") == log_lines(tmp_path / "again")
    notes = Notes()
    pretrain(recipe_for(videos, [f"start={tmp_path / 'first'}"]), tmp_path / "next", notes)
    assert any(str(first) in line for line in notes.lines)
    assert records(tmp_path / "next")[0]["loss"] < records(tmp_path / "first")[0]["loss"]


def test_fresh_starts_again(videos: Path, tmp_path: Path) -> None:
    pretrain(recipe_for(videos), tmp_path, Notes())
    before = log_lines(tmp_path)
    notes = Notes()
    pretrain(recipe_for(videos), tmp_path, notes, fresh=True)
    assert notes.facts[0].first_step == 1
    assert log_lines(tmp_path) == before


def test_a_recipe_without_videos_says_how_to_give_some(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--data"):
        pretrain(override(pretrain_recipe(), ["data.videos=null"]), tmp_path, Notes())
    with pytest.raises(ValueError, match="no such"):
        pretrain(pretrain_recipe(), tmp_path, Notes())
    assert not list(tmp_path.iterdir())
