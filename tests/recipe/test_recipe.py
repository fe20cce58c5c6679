"""Recipes are strict, printable, overridable, and read back equal."""

import re
from pathlib import Path

import pytest

from tubelet.masks import Random, Tube
from tubelet.recipe import FinetuneRecipe, PretrainRecipe, override, parse_recipe, read_recipe, to_yaml, write_recipe
from tubelet.targets.pixels import Pixels
from tubelet.video.sample import Span


@pytest.mark.parametrize("recipe", [PretrainRecipe(name="a"), FinetuneRecipe(name="b", classes=4)])
def test_yaml_reads_back_equal(recipe: PretrainRecipe | FinetuneRecipe, tmp_path: Path) -> None:
    write_recipe(recipe, tmp_path / "recipe.yaml")
    assert read_recipe(tmp_path / "recipe.yaml") == recipe
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


def test_a_change_reaches_a_nested_field() -> None:
    changed = override(PretrainRecipe(name="a"), ["model.encoder.depth=3", "optim.lr=1e-3", "optim.clip_grad=0.5"])
    assert changed.model.encoder.depth == 3
    assert changed.optim.lr == 0.001
    assert changed.optim.clip_grad == 0.5


def test_a_part_is_exchanged_by_its_kind() -> None:
    changed = override(PretrainRecipe(name="a", mask=Tube(ratio=0.7)), ["mask=random", "target=pixels"])
    assert changed.mask == Random()
    assert changed.target == Pixels()


def test_a_part_named_by_its_kind_takes_further_changes() -> None:
    assert override(PretrainRecipe(name="a"), ["mask=random", "mask.ratio=0.8"]).mask == Random(ratio=0.8)
    with pytest.raises(ValueError, match="an mvit needs all: choose model=masked_predictor"):
        override(PretrainRecipe(name="a"), ["model.encoder=mvit"])
    inside = ["model=masked_predictor", "model.encoder=mvit", "model.encoder.depth=20"]
    assert override(PretrainRecipe(name="a"), inside).model.encoder.depth == 20
    changed = override(PretrainRecipe(name="a"), ["data.sampler=span", "data.sampler.stride=3"])
    assert changed.data.sampler == Span(stride=3)


def test_a_part_that_was_absent_can_be_filled() -> None:
    changed = override(PretrainRecipe(name="a"), ["data.augment.erase.probability=0.5"])
    assert changed.data.augment.erase is not None
    assert changed.data.augment.erase.probability == 0.5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("optim.lrr=1", "unknown field 'optim.lrr'; did you mean 'lr'?"),
        ("optin.lr=1", "unknown field 'optin.lr'; did you mean 'optim'?"),
        ("optim.lr", "write a change as field=value"),
        ("optim.lr=fast", "optim.lr"),
        ("mask=tub", "'tube'"),
        ("mask.ratio=1.5", "mask.ratio"),
        ("name.x=1", "'name' has no fields"),
        ("data.augment.erase.probabilty=0.5", "did you mean 'probability'?"),
        ("model.encoder.heads=5", "not a multiple of heads"),
    ],
)
def test_a_wrong_change_is_one_clear_line(change: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        override(PretrainRecipe(name="a"), [change])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: pretrain\nname: a\nseeds: 1\n", "file.yaml: unknown field 'seeds'; did you mean 'seed'?"),
        ("kind: train\nname: a\n", "choose from pretrain, finetune"),
        ("- a\n", "a recipe is a YAML mapping"),
        ("kind: [pretrain\n", "not YAML"),
        ("kind: pretrain\n", "missing field 'name'"),
    ],
)
def test_a_wrong_file_is_one_clear_line(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        parse_recipe(text, "file.yaml")
    assert "\n" not in str(caught.value)


def test_the_whole_recipe_is_printed() -> None:
    text = to_yaml(PretrainRecipe(name="a"))
    for field in ("ratio: 0.9", "warmup_epochs:", "kind: normalised_pixels", "max_skipped:"):
        assert field in text
