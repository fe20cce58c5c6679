"""Recipes of several stages: strict, read back equal, changed by stage, refused where stages do not fit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.methods.classifier import ClassifierSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.recipe import (
    FinetuneRecipe,
    PretrainRecipe,
    ProgressiveRecipe,
    SameClasses,
    Stage,
    change_stages,
    parse_any_recipe,
    parse_recipe,
    read_any_recipe,
    resolved,
    to_yaml,
    write_recipe,
)

ENCODER = ViTSpec(width=24, depth=2, heads=2)


def pretrain(**fields: object) -> PretrainRecipe:
    model = MaskedAutoencoderSpec(encoder=ENCODER, decoder=DecoderSpec(width=16, depth=1, heads=2))
    return PretrainRecipe.model_validate({"name": "pre", "model": model, **fields})


def finetune(**fields: object) -> FinetuneRecipe:
    return FinetuneRecipe.model_validate({"name": "fine", "model": ClassifierSpec(encoder=ENCODER), **fields})


def stages(*given: Stage) -> ProgressiveRecipe:
    return ProgressiveRecipe(name="x", stages=given)


def find(name: str) -> PretrainRecipe | FinetuneRecipe:
    if name == "pre":
        return pretrain()
    raise ValueError(f"unknown recipe {name!r}")


THREE = stages(
    Stage(name="one", recipe="pre", changes=("optim.lr=1e-3",)),
    Stage(name="two", recipe=finetune(), evaluate=True),
    Stage(name="three", recipe=finetune(start_head=SameClasses()), evaluate="test.csv"),
)


def test_yaml_reads_back_equal(tmp_path: Path) -> None:
    for number, recipe in enumerate((THREE, resolved(THREE, find))):
        write_recipe(recipe, tmp_path / f"{number}.yaml")
        assert read_any_recipe(tmp_path / f"{number}.yaml") == recipe


def test_a_file_of_stages_may_be_short() -> None:
    text = """
    kind: progressive
    name: v2
    seed: 3
    stages:
      - {name: pretrain, recipe: pre, changes: [schedule.epochs=2]}
      - {name: post, recipe: {kind: finetune, name: post}}
      - {name: target, recipe: {kind: finetune, name: target, start_head: same_classes}, start: post, evaluate: a.csv}
    """
    recipe = parse_any_recipe(text, "file")
    assert isinstance(recipe, ProgressiveRecipe)
    assert [recipe.start_of(place) for place in range(3)] == [None, 0, 1]
    assert recipe.stages[2].filled == FinetuneRecipe(name="target", start_head=SameClasses())


def test_commands_for_one_run_say_who_takes_stages() -> None:
    with pytest.raises(ValueError, match="file: a progressive recipe, of several runs; tubelet run takes it"):
        parse_recipe(to_yaml(THREE), "file")


def test_stages_are_filled_in_seeded_and_changed() -> None:
    whole = resolved(change_stages(THREE, ["one.optim.lr=2e-3", "all.run.batch_size=7", "seed=5"]), find)
    one, two, three = (stage.filled for stage in whole.stages)
    assert one.optim.lr == 0.002
    assert [own.run.batch_size for own in (one, two, three)] == [7, 7, 7]
    assert [own.seed for own in (one, two, three)] == [5, 5, 5]
    assert all(stage.changes == () for stage in whole.stages)
    assert resolved(whole, find) == whole
    own = change_stages(THREE, ["seed=5", "two.seed=1"])
    assert [stage.filled.seed for stage in resolved(own, find).stages] == [5, 1, 5]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("tow.seed=1", "no stage is called 'tow'; did you mean 'two'?"),
        ("two.sed=1", "stage 'two': fine: unknown field 'sed'; did you mean 'seed'?"),
        ("two", "write a change as field=value"),
        ("nam=1", "unknown field 'nam'; did you mean 'name'?"),
        ("one.mask.ratio=2", "stage 'one': pre: mask.ratio"),
    ],
)
def test_a_wrong_change_is_one_clear_line(change: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        resolved(change_stages(THREE, [change]), find)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "stages: Tuple should have at least 1 item"),
        ([{"name": "a", "recipe": "pre"}, {"name": "a", "recipe": "pre"}], "two stages are called 'a'"),
        ([{"name": "a b", "recipe": "pre"}], "stages.0.name: String should match pattern"),
        ([{"name": "all", "recipe": "pre"}], "'all' has a meaning of its own"),
        ([{"name": "a"}], "missing field 'stages.0.recipe'"),
        ([{"name": "a", "recipe": "pre", "begin": 1}], "unknown field 'stages.0.begin'"),
        ([{"name": "a", "recipe": {"kind": "pretrain", "name": "p", "sed": 1}}], "did you mean 'seed'?"),
        ([{"name": "a", "recipe": {"name": "p"}}], "give the name of a recipe, a YAML file, or a mapping with kind"),
        ([{"name": "a", "recipe": "pre", "start": "a"}], "stage 'a' starts from 'a', which is not before it"),
        (
            [{"name": "a", "recipe": "pre", "start": "b"}, {"name": "b", "recipe": "pre", "start": "a"}],
            "stage 'a' starts from 'b', which is not before it",
        ),
        (
            [{"name": "first", "recipe": "pre"}, {"name": "b", "recipe": "pre", "start": "frist"}],
            "stage 'b' starts from 'frist', which is no stage; did you mean 'first'?",
        ),
    ],
)
def test_a_wrong_file_is_one_clear_line(given: list[object], words: str) -> None:
    text = yaml.safe_dump({"kind": "progressive", "name": "x", "stages": given})
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        parse_any_recipe(text, "file.yaml")
    assert str(error.value).startswith("file.yaml: ")
    assert "\n" not in str(error.value)


WIDER = ENCODER.model_copy(update={"width": 48})
HEADS = ENCODER.model_copy(update={"heads": 3})
SCALED = ENCODER.model_copy(update={"layer_scale": 0.1})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([finetune(model=ClassifierSpec(encoder=WIDER))], "model.encoder.width is 48, but 24 in 'first'"),
        ([finetune(model=ClassifierSpec(encoder=HEADS))], "model.encoder.heads is 3, but 2 in 'first'"),
        ([finetune(model=ClassifierSpec(encoder=SCALED))], "layer_scale (set or not) is True, but False"),
        ([pretrain(model=MaskedAutoencoderSpec(encoder=ENCODER))], "model.decoder.width is 384, but 16 in 'first'"),
        ([finetune(), pretrain()], "stage 'stage2' pre-trains and cannot start from 'stage1', a classifier"),
        ([finetune(start="weights.pth")], "starts from stage 'first', and its recipe from weights.pth"),
        ([finetune(start_head=SameClasses())], "start_head=same_classes, but 'first' pre-trains and has no classes"),
    ],
)
def test_stages_that_do_not_fit_are_refused(given: list[PretrainRecipe | FinetuneRecipe], words: str) -> None:
    later = [Stage(name=f"stage{number}", recipe=recipe) for number, recipe in enumerate(given, start=1)]
    with pytest.raises(ValueError, match=re.escape(words)):
        resolved(stages(Stage(name="first", recipe=pretrain()), *later), find)


def test_what_no_weight_depends_on_may_change_from_stage_to_stage() -> None:
    other = ENCODER.model_copy(update={"drop_path": 0.2})
    whole = stages(
        Stage(name="a", recipe=pretrain()),
        Stage(name="b", recipe=finetune(model=ClassifierSpec(encoder=other), clip={"frames": 8, "size": 64})),
        Stage(name="c", recipe=finetune(model=ClassifierSpec(encoder=WIDER)), start=None),
        Stage(name="d", recipe=pretrain(), start="a"),
        Stage(name="e", recipe=finetune(start="weights.pth"), start=None),
    )
    assert [whole.start_of(place) for place in range(5)] == [None, 0, None, 0, None]
    resolved(whole, find)


def test_only_classes_can_be_tested_and_a_head_needs_a_start() -> None:
    with pytest.raises(ValueError, match="stage 'a': evaluate is for stages with classes"):
        resolved(stages(Stage(name="a", recipe=pretrain(), evaluate=True)), find)
    with pytest.raises(ValueError, match="stage 'a': start_head=same_classes, but it starts from nothing"):
        resolved(stages(Stage(name="a", recipe=finetune(start_head=SameClasses()))), find)
    with pytest.raises(ValueError, match="stage 'a': unknown recipe 'none'"):
        resolved(stages(Stage(name="a", recipe="none")), find)
