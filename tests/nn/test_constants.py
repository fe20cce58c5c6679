"""Buffers that no checkpoint holds are computed again where a module was built without numbers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.nn.constants import restore_constants
from tubelet.targets.pixels import NormalisedPixels
from tubelet.types import ClipShape

CLIP = ClipShape(frames=4, size=16)


@pytest.mark.parametrize("changes", [{}, {"positions": ClipShape(frames=2, size=32)}, {"learnable_positions": True}])
def test_constants_are_those_of_a_module_built_with_numbers(changes: dict[str, object]) -> None:
    encoder = ViTSpec.model_validate({"width": 24, "depth": 1, "heads": 2, "patch": 8, **changes})
    spec = MaskedAutoencoderSpec(encoder=encoder, decoder=DecoderSpec(width=16, depth=1, heads=2))
    right = dict(spec.build(CLIP, NormalisedPixels()).named_buffers())
    with torch.device("meta"):
        method = spec.build(CLIP, NormalisedPixels())
    method.to_empty(device="cpu")
    with torch.no_grad():
        for value in method.buffers():
            value.fill_(7.0)
    restore_constants(method)
    found = dict(method.named_buffers())
    assert found.keys() == right.keys()
    assert all(found[name].equal(value) for name, value in right.items())


def test_a_buffer_that_nobody_computes_is_an_error_of_ours() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    restore_constants(module)  # those of a norm are in checkpoints
    module[0].register_buffer("table", torch.ones(2), persistent=False)
    with pytest.raises(AssertionError, match=r"0\.table"):
        restore_constants(module)
