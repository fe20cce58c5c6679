"""Validation after an epoch with videos that ranks cannot share evenly: where weights are spread, passes are common."""

from __future__ import annotations

from pathlib import Path

import pytest
from ranks import run_ranks
from toy_labelled import labelled_folder, toy_recipe
from toy_run import Notes, records

from tubelet.eval import scoring as views
from tubelet.recipe import FinetuneRecipe, LabelledData, LabelledSource
from tubelet.runs.finetune import finetune
from tubelet.spec import replace
from tubelet.video.sample import Segments


def listed(folder: Path, name: str, *videos: str) -> str:
    """A list of some files of a labelled folder."""
    path = folder.parent / f"{name}.csv"
    path.write_text("".join(f"{folder / video}.mp4 {video.split('/')[0]}\n" for video in videos))
    return str(path)


def recipe_of(tmp_path: Path, *lists: tuple[str, ...]) -> FinetuneRecipe:
    """A run of two epochs whose sources are validated on these videos."""
    train, val = labelled_folder(tmp_path / "train", each=4), labelled_folder(tmp_path / "val", each=3, seed=1)
    sources = tuple(
        LabelledSource(train=str(train), val=listed(val, f"val{place}", *videos), name=f"s{place}")
        for place, videos in enumerate(lists)
    )
    recipe = toy_recipe(data=LabelledData(sources=sources, sampler=Segments(), workers=0))
    return replace(recipe, schedule=replace(recipe.schedule, epochs=2))


def measured(out: Path) -> list[dict[str, float]]:
    return [record["evaluation"] for record in records(out) if "evaluation" in record]


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize(
    "lists",
    [
        [("bright/0",)],
        [("bright/0", "dark/0", "bright/1")],
        [("dark/1",), ("bright/0", "dark/0", "bright/1", "dark/1", "bright/2")],
    ],
    ids=["fewer than ranks", "a pass more", "sources"],
)
def test_any_number_of_videos_is_validated(
    lists: list[tuple[str, ...]], parallel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "TOKENS_PER_PASS", 1)  # a video a pass
    recipe = recipe_of(tmp_path, *lists)
    finetune(recipe, tmp_path / "one", Notes())
    spread = replace(recipe, run=replace(recipe.run, parallel=parallel))

    def work(rank: int) -> None:
        del rank
        finetune(spread, tmp_path / "many", Notes())

    ranks = run_ranks(2, work, tmp_path / "said")
    assert [one.code for one in ranks] == [0, 0], "\n".join(one.text for one in ranks)
    assert measured(tmp_path / "many") == measured(tmp_path / "one")
    assert len(measured(tmp_path / "one")) == 2
