"""FLOPs of multiscale encoders: as published (which count a multiplication and an addition as one), and by torch."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tubelet.methods.classifier import ClassifierSpec
from tubelet.models.mvit_spec import MViTSpec, Stage, mvit_b, mvit_l, mvit_s
from tubelet.nn import pooling_attention
from tubelet.recipe import FinetuneRecipe
from tubelet.spec import replace
from tubelet.train.multiscale_flops import clip_flops, multiscale_flops
from tubelet.types import ClipShape


@pytest.mark.parametrize(
    ("spec", "clip", "giga"),
    [
        (mvit_s(), ClipShape(), 64),
        (mvit_b(), ClipShape(frames=32), 225),
        (mvit_l(), ClipShape(frames=40, size=312), 2828),
        (replace(mvit_s(), widen_in="mlp"), ClipShape(), 71),
        (replace(mvit_l(), widen_in="mlp"), ClipShape(), 377),
    ],
    ids=["S", "B", "L", "S of MaskFeat", "L of MaskFeat"],
)
def test_published_numbers(spec: MViTSpec, clip: ClipShape, giga: int) -> None:
    assert multiscale_flops(spec, clip, outputs=400, rows=1).forward / 2e9 == pytest.approx(giga, rel=0.02)


@pytest.mark.parametrize("widen_in", ["attention", "mlp"])
def test_torch_counts_the_same(widen_in: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for one row: the class token asks for no relative position. How the bias is added is a kernel's affair."""
    monkeypatch.setattr(pooling_attention, "attend_fused", lambda q, k, v, *_: (q @ k.mT).softmax(-1) @ v)
    spec = MViTSpec.model_validate(
        {
            "width": 32,
            "depth": 4,
            "stages": [Stage(start=1), Stage(start=2)],
            "kv_stride": (1, 4, 4),
            "widen_in": widen_in,
        }
    )
    recipe = FinetuneRecipe(name="a", classes=5, clip=ClipShape(frames=4, size=64), model=ClassifierSpec(encoder=spec))
    with torch.device("meta"):
        classifier = recipe.model.build(recipe.clip, 5)
        video = torch.zeros(1, 3, 4, 64, 64, dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter:
        classifier(video)
    assert clip_flops(recipe).forward == pytest.approx(counter.get_total_flops(), rel=1e-3)
