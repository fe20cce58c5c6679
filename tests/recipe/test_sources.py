"""Sources in a recipe: either one set or several, each with a name of its own."""

import re

import pytest

from tubelet.recipe import FinetuneRecipe, LabelledSource, PretrainRecipe, VideoSource, override, parse_recipe, to_yaml
from tubelet.recipe.data import source_names
from tubelet.video.sample import Strided, Uniform

MIXED = """
kind: pretrain
name: hybrid
data:
  sources:
    - {videos: k710.csv, root: k710}
    - {videos: ssv2.csv, sampler: {kind: strided, stride: 2}}
    - {videos: movies, weight: 0.5, segment_seconds: 10}
"""


def test_sources_are_read_from_a_file_and_read_back_equal() -> None:
    recipe = parse_recipe(MIXED, "hybrid.yaml")
    assert isinstance(recipe, PretrainRecipe)
    assert [source.weight for source in recipe.data.sources] == [1.0, 1.0, 0.5]
    assert recipe.data.sources[1].sampler == Strided(stride=2)
    assert recipe.data.sources[2].segment_seconds == 10
    assert source_names(recipe.data.sources) == ("k710", "ssv2", "movies")
    assert parse_recipe(to_yaml(recipe), "again") == recipe


def test_sources_come_from_the_command_line_too() -> None:
    several = "data.sources=[{videos: a, weight: 2, sampler: uniform}, {videos: b}]"
    changed = override(PretrainRecipe(name="a"), [several])
    assert changed.data.sources == (VideoSource(videos="a", weight=2, sampler=Uniform()), VideoSource(videos="b"))
    tuned = override(FinetuneRecipe(name="a"), ["data.sources=[{train: a.csv, val: b.csv, class_names: c.txt}]"])
    assert tuned.data.sources == (LabelledSource(train="a.csv", val="b.csv", class_names="c.txt"),)


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        (PretrainRecipe, ["data.videos=a"], "data.videos and data.sources are both given; keep one of them"),
        (FinetuneRecipe, ["data.val=a"], "data.val and data.sources are both given; keep one of them"),
        (PretrainRecipe, ["data.sources=[{videos: a, weight: 0}]"], "data.sources.0.weight: Input should be greater"),
        (PretrainRecipe, ["data.sources=[{videos: a, weight: -1}]"], "greater than 0 (got -1)"),
        (PretrainRecipe, ["data.sources=[{videos: a, wieght: 1}]"], "did you mean 'weight'?"),
        (PretrainRecipe, ["data.sources=[{weight: 1}]"], "missing field 'data.sources.0.videos'"),
        (PretrainRecipe, ["data.sources=[{videos: a, segment_seconds: 0}]"], "data.sources.0.segment_seconds"),
        (PretrainRecipe, ["data.sources=[{videos: a, name: x}, {videos: b, name: x}]"], "are called 'x'"),
        (PretrainRecipe, ["data.sources=[{videos: a}, {videos: a}]"], "two of data.sources are called 'a'"),
    ],
)
def test_wrong_sources_are_one_clear_line(kind: type, changes: list[str], words: str) -> None:
    first = "{videos: a}" if kind is PretrainRecipe else "{train: a}"
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        override(kind(name="toy"), [f"data.sources=[{first}]", *changes])
    assert "\n" not in str(error.value)


def test_a_name_is_the_end_of_the_path_or_all_of_it_where_that_is_not_enough() -> None:
    sources = [VideoSource(videos=path) for path in ("k400/train.csv", "ssv2/train.csv", "movies")]
    assert source_names(sources) == ("k400/train.csv", "ssv2/train.csv", "movies")
    assert source_names([VideoSource(videos="k400/train.csv"), VideoSource(videos="a", name="me")]) == ("train", "me")
