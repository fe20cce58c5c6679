"""The demo's recipes: fair, readable back, and fit for the videos that it makes."""

from pathlib import Path

from tubelet.recipe import EncoderRun, FinetuneRecipe, parse_recipe, to_yaml
from tubelet.recipes.demo import demo, demo_finetune, demo_pretrain, demo_scratch, demo_videos
from tubelet.spec import replace

HEAD_START = {"name", "start", "optim"}


def test_both_contenders_get_the_same_but_the_start() -> None:
    parts = demo(Path("somewhere"), seed=4)
    one, other = parts.finetune, parts.scratch
    differing = {name for name in FinetuneRecipe.model_fields if getattr(one, name) != getattr(other, name)}
    assert differing <= HEAD_START
    assert replace(one.optim, layer_decay=None) == replace(other.optim, layer_decay=None)
    assert one.start == "somewhere/pretrained"
    assert other.start is None


def test_the_encoder_fits_the_pretrained_one() -> None:
    before, after = demo_pretrain(), demo_finetune()
    assert before.clip == after.clip
    assert replace(after.model.encoder, drop_path=0.0) == replace(before.model.encoder, drop_path=0.0)


def test_no_flip_turns_a_class_into_another() -> None:
    assert demo_finetune().data.augment.flip == 0.0
    assert demo_scratch().data.augment.flip == 0.0


def test_clips_fit_into_the_videos() -> None:
    videos, recipe = demo_videos(), demo_pretrain()
    stride = getattr(recipe.data.sampler, "stride", 1)
    assert (recipe.clip.frames - 1) * stride + 1 < videos.frames
    assert recipe.clip.size < videos.size
    grid = recipe.clip.grid(recipe.model.encoder.cube)
    assert grid.tokens >= 32


def test_the_seed_is_everywhere() -> None:
    parts = demo(Path("somewhere"), seed=4)
    assert {parts.videos.seed, parts.pretrain.seed, parts.finetune.seed, parts.scratch.seed} == {4}


def test_recipes_read_back_equal() -> None:
    parts = demo(Path("somewhere"))
    recipes: list[EncoderRun] = [parts.pretrain, parts.finetune, parts.scratch]
    for recipe in recipes:
        assert parse_recipe(to_yaml(recipe), recipe.name) == recipe
