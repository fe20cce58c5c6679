"""Every entry of every union: made from its defaults, written as YAML and read back, and told of in the docs.

A new entry needs nothing here, but where it has no defaults: then it is an entry in `EXAMPLES`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from tubelet.masks import DecodeRule, MaskRule
from tubelet.recipe import PretrainRecipe, override, parse_recipe, to_yaml
from tubelet.spec import Spec, kinds_of
from tubelet.targets.unions import AnyTarget
from tubelet.video.augment.crops import Crop
from tubelet.video.sample import Sampler

DOCS = Path(__file__).parents[1] / "docs"
EXAMPLES: dict[str, dict[str, Any]] = {"several": {"parts": ["pixels", {"kind": "hog", "weight": 0.5}]}}


class Union(NamedTuple):
    """A union, the field of a recipe that holds it, and the page that tells of its kinds."""

    union: Any
    field: str
    page: str


UNIONS = (
    Union(MaskRule, "mask", "masks.md"),
    Union(DecodeRule, "decode", "masks.md"),
    Union(AnyTarget, "target", "targets.md"),
    Union(Sampler, "data.sampler", "data.md"),
    Union(Crop, "data.augment.crop", "data.md"),
)
ENTRIES = [pytest.param(one, kind, id=f"{one.field}={kind}") for one in UNIONS for kind in kinds_of(one.union)]

every_entry = pytest.mark.parametrize(("one", "kind"), ENTRIES)


def made(one: Union, kind: str) -> Spec:
    return kinds_of(one.union)[kind](**EXAMPLES.get(kind, {}))


@every_entry
def test_an_entry_is_named_by_its_kind_and_says_what_it_is(one: Union, kind: str) -> None:
    spec = made(one, kind)
    reader: TypeAdapter[Any] = TypeAdapter(one.union)
    assert reader.validate_python({"kind": kind, **EXAMPLES.get(kind, {})}) == spec
    assert kind in EXAMPLES or reader.validate_python(kind) == spec
    assert (type(spec).__doc__ or "").strip()
    assert all(field.default is not None or not field.is_required() for field in type(spec).model_fields.values()) or (
        kind in EXAMPLES
    )


@every_entry
def test_a_recipe_with_it_is_read_back_from_its_yaml(one: Union, kind: str) -> None:
    value = yaml.safe_dump(made(one, kind).model_dump(mode="json"), default_flow_style=True, width=1000).strip()
    recipe = override(PretrainRecipe(name="toy"), ["model=masked_predictor", f"{one.field}={value}"])
    assert parse_recipe(to_yaml(recipe), "again") == recipe
    here: Any = recipe
    for part in one.field.split("."):
        here = getattr(here, part)
    assert here == made(one, kind)


@every_entry
def test_the_docs_tell_of_it(one: Union, kind: str) -> None:
    assert re.search(rf"`{kind}`|kind: {kind}\b|={kind}\b", (DOCS / one.page).read_text()), (one.page, kind)


@pytest.mark.parametrize("one", UNIONS, ids=lambda one: one.field)
def test_an_unknown_kind_says_which_there_are(one: Union) -> None:
    with pytest.raises(ValueError, match=rf"{one.field}: unknown kind 'zzz'; choose from ") as refused:
        override(PretrainRecipe(name="toy"), [f"{one.field}=zzz"])
    assert "\n" not in str(refused.value)
    assert all(kind in str(refused.value) for kind in kinds_of(one.union))
    with pytest.raises(ValidationError, match="unknown kind"):
        TypeAdapter(one.union).validate_python({"kind": "zzz"})


@pytest.mark.parametrize("kind", kinds_of(Sampler))
def test_a_sampler_gives_as_many_frames_as_a_clip_has(kind: str) -> None:
    sampler: Any = kinds_of(Sampler)[kind]()
    for total in (1, 5, 300):
        taken = sampler.train(total, 8, np.random.default_rng(0))
        views = sampler.views(total, 8, 3)
        assert taken.shape == (8,)
        assert views.shape == (3, 8)
        assert 0 <= min(taken.min(), views.min()) <= max(taken.max(), views.max()) < total
        assert np.array_equal(taken, sampler.train(total, 8, np.random.default_rng(0)))
