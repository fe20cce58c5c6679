"""Published encoders in one line each."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

import tubelet
from tubelet import models
from tubelet.models.base import Encoder

MILLIONS = {
    "vit_ti": 5.6,
    "vit_s": 21.9,
    "vit_b": 86.2,
    "vit_l": 303.9,
    "vit_h": 631.7,
    "vit_g": 1011.6,
    "mvit_s": 34.2,
    "mvit_b": 50.9,
    "mvit_l": 212.9,
    "swin_t": 27.9,
    "swin_s": 49.5,
    "swin_b": 87.6,
    "swin_l": 196.3,
    "timesformer_b": 121.3,
}


@pytest.mark.parametrize("name", models.__all__)
def test_each_has_the_published_number_of_parameters(name: str) -> None:
    with torch.device("meta"):
        encoder = getattr(models, name)()
    assert isinstance(encoder, Encoder)
    assert sum(value.numel() for value in encoder.parameters()) / 1e6 == pytest.approx(MILLIONS[name], abs=0.1)


def test_fields_of_the_spec_may_be_given() -> None:
    encoder = tubelet.models.vit_ti(frames=4, size=32, depth=1)
    assert encoder(torch.zeros(1, 3, 4, 32, 32, dtype=torch.uint8)).shape == (1, 8, 192)
    with pytest.raises(ValidationError, match="dropout_path"):
        tubelet.models.mvit_s(dropout_path=0.1)
