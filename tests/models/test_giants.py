"""ViT-H and ViT-g at full size, without their numbers: arXiv:2303.16727, table of the architecture."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.methods.classifier import ClassifierSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.nn.block import Block
from tubelet.recipe import PretrainRecipe, parse_recipe, to_yaml
from tubelet.targets.pixels import NormalisedPixels
from tubelet.types import ClipShape

CLIP = ClipShape(frames=16, size=224)
HUGE = ViTSpec(width=1280, depth=32, heads=16), DecoderSpec(width=512, depth=4, heads=8)
GIANT = (
    ViTSpec(width=1408, depth=40, heads=16, mlp_ratio=48 / 11, patch=14),
    DecoderSpec(width=512, depth=4, heads=8, mlp_ratio=48 / 11),  # the authors' code hands the ratio on
)
MILLIONS = [(HUGE, 631.61, 632.12, 645.66), (GIANT, 1011.61, 1012.17, 1026.31)]


def millions(module: nn.Module) -> float:
    assert all(value.is_meta for value in module.parameters())
    return sum(value.numel() for value in module.parameters()) / 1e6


@pytest.mark.parametrize(("specs", "encoder", "classifier", "pretraining"), MILLIONS, ids=["huge", "giant"])
def test_parameters_are_the_published_ones(
    specs: tuple[ViTSpec, DecoderSpec], encoder: float, classifier: float, pretraining: float
) -> None:
    with torch.device("meta"):
        method = MaskedAutoencoderSpec(encoder=specs[0], decoder=specs[1]).build(CLIP, NormalisedPixels())
        tuned = ClassifierSpec(encoder=specs[0]).build(CLIP, 400)
    assert millions(method.encoder) == pytest.approx(encoder, abs=0.006)
    assert millions(method) == pytest.approx(pretraining, abs=0.006)
    assert millions(tuned) == pytest.approx(classifier, abs=0.006)


def test_the_mlp_of_a_giant_is_6144_wide_also_after_a_trip_through_yaml() -> None:
    """48/11 is no number that floats have: 1408 times it must not come out below 6144."""
    recipe = PretrainRecipe(name="giant", model=MaskedAutoencoderSpec(encoder=GIANT[0], decoder=GIANT[1]))
    for spec in (GIANT[0], parse_recipe(to_yaml(recipe), "recipe").model.encoder):
        with torch.device("meta"):
            blocks = ClassifierSpec(encoder=spec).build(CLIP, 400).encoder.stack()
        assert {block.mlp.fc1.out_features for block in blocks if isinstance(block, Block)} == {6144}
