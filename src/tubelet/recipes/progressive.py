"""Recipes of several stages (`tubelet run`). `PROGRESSIVE` names all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from tubelet.data.synthetic.hybrid import HybridLists
from tubelet.recipe import (
    FinetuneRecipe,
    LabelledData,
    LabelledSource,
    PretrainRecipe,
    ProgressiveRecipe,
    SameClasses,
    Stage,
    VideoSource,
)
from tubelet.recipes import videomae_v2
from tubelet.recipes.demo import demo_finetune, demo_pretrain
from tubelet.spec import replace

DEMO_DATA: Final = Path("demo/data")
"""Where `tubelet demo` puts its videos when it is not told otherwise."""


def demo_progressive(folder: Path = DEMO_DATA) -> ProgressiveRecipe:
    """Three stages on the demo's videos: two unlabelled sets, two labelled ones merged by class name, a small target.

    Make the videos first: `tubelet demo --data-only`. Then: `tubelet run demo-progressive --out runs/demo-stages`
    """
    lists = HybridLists.of(folder)
    post = Stage(name="post", recipe=_post(lists))
    target = Stage(name="target", recipe=_target(lists, folder, head=SameClasses()), evaluate=str(folder / "test.csv"))
    return ProgressiveRecipe(
        name="demo-progressive", stages=(Stage(name="pretrain", recipe=_pretrain(lists)), post, target)
    )


def demo_with_and_without(folder: Path = DEMO_DATA) -> ProgressiveRecipe:
    """The same, and the target once more from the first stage, without the middle one: what post-pre-training gives.

    Command: `tubelet run demo-with-and-without --out runs/demo-with-and-without`
    """
    recipe = demo_progressive(folder)
    lists = HybridLists.of(folder)
    direct = Stage(name="direct", recipe=_target(lists, folder), start="pretrain", evaluate=str(folder / "test.csv"))
    return replace(recipe, name="demo-with-and-without", stages=(*recipe.stages, direct))


def _pretrain(lists: HybridLists) -> PretrainRecipe:
    recipe = demo_pretrain()
    sources = (VideoSource(videos=str(lists.unlabelled_a)), VideoSource(videos=str(lists.unlabelled_b)))
    return replace(recipe, data=replace(recipe.data, sources=sources))


def _post(lists: HybridLists) -> FinetuneRecipe:
    sources = (LabelledSource(train=str(lists.labelled_a)), LabelledSource(train=str(lists.labelled_b)))
    recipe = demo_finetune()
    return replace(recipe, name="demo-post", data=replace(recipe.data, sources=sources))


def _target(lists: HybridLists, folder: Path, head: SameClasses | None = None) -> FinetuneRecipe:
    recipe = demo_finetune()
    data: LabelledData = replace(recipe.data, train=str(lists.target), class_names=str(folder / "classes.txt"))
    recipe = replace(recipe, name="demo-target", data=data)
    return (
        recipe
        if head is None
        else replace(recipe, start_head=head, optim=replace(recipe.optim, lr=recipe.optim.lr / 10))
    )


PROGRESSIVE: Final[dict[str, Callable[[], ProgressiveRecipe]]] = {
    "demo-progressive": demo_progressive,
    "demo-with-and-without": demo_with_and_without,
    "videomae-v2-b-progressive": videomae_v2.progressive_b,
    "videomae-v2-g-progressive": videomae_v2.progressive_g,
}
"""Every recipe of several stages by the name that the command line takes."""
