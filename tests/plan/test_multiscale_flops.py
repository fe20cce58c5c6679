"""FLOPs of multiscale encoders: as published (which count a multiplication and an addition as one), and by torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tubelet.data.dataset import collate
from tubelet.masks import Tube
from tubelet.methods.classifier import ClassifierSpec
from tubelet.methods.predictor import MaskedPredictorSpec
from tubelet.models.mvit import layers as pooling_attention
from tubelet.models.mvit.model import MVIT_B, MVIT_L, MVIT_S, MViTSpec, MViTStage
from tubelet.nn.mixing import NO_MIXING
from tubelet.plan.count.flops import Flops, count_flops
from tubelet.plan.count.step import plan_step
from tubelet.plan.measure.real_steps import made_up_job
from tubelet.plan.plan import count_parameters
from tubelet.recipe import EncoderRun, FinetuneRecipe, PretrainRecipe, Run
from tubelet.spec import replace
from tubelet.targets.hog import Hog
from tubelet.types import ClipShape

CLIP: Final = ClipShape(frames=4, size=64)
TINY: Final = MViTSpec(width=16, depth=4, stages=(MViTStage(start=1), MViTStage(start=2)), kv_stride=(1, 4, 4))
CONVOLVED: Final = "convolution"


def classify(encoder: MViTSpec, clip: ClipShape = CLIP, *, classes: int = 400) -> FinetuneRecipe:
    model = ClassifierSpec(encoder=encoder, pooling="class" if encoder.class_token else "mean")
    run = Run(batch_size=1, precision="fp32", threads=1, device="cpu")
    return FinetuneRecipe(name="a", classes=classes, clip=clip, model=model, run=run, mixing=NO_MIXING)


def predict(encoder: MViTSpec, clip: ClipShape = CLIP) -> PretrainRecipe:
    run = Run(batch_size=1, precision="fp32", threads=1, device="cpu")
    model = MaskedPredictorSpec(encoder=encoder)
    return PretrainRecipe(name="a", clip=clip, model=model, mask=Tube(ratio=0.4), target=Hog(), run=run)


def flops_of(recipe: EncoderRun) -> Flops:
    return count_flops(plan_step(recipe))


@pytest.mark.parametrize(
    ("spec", "clip", "giga"),
    [
        (MVIT_S, ClipShape(), 64),
        (MVIT_B, ClipShape(frames=32), 225),
        (MVIT_L, ClipShape(frames=40, size=312), 2828),
        (replace(MVIT_S, widen_in="mlp"), ClipShape(), 71),
        (replace(MVIT_L, widen_in="mlp"), ClipShape(), 377),
    ],
    ids=["S", "B", "L", "S of MaskFeat", "L of MaskFeat"],
)
def test_published_numbers(spec: MViTSpec, clip: ClipShape, giga: int) -> None:
    assert flops_of(classify(spec, clip)).forward / 2e9 == pytest.approx(giga, rel=0.02)


def test_a_fine_last_stage_costs_more_in_pretraining() -> None:
    """71 G in fine-tuning with 7 x 7 tokens, 86.5 G while the last stage keeps 14 x 14 of them."""
    spec = replace(MVIT_S, widen_in="mlp", last_stage_stride=1)
    assert flops_of(predict(spec, ClipShape())).forward / 2e9 == pytest.approx(86.5, rel=0.002)


def unbiased(q: Any, k: Any, v: Any, answers: Any, places: Any) -> Any:
    """Answers reach the result, or their products would have no gradient."""
    del places
    return (q @ k.mT).softmax(-1) @ v + 0 * answers.sum()


def counted(recipe: EncoderRun, tmp_path: Any) -> tuple[FlopCounterMode, FlopCounterMode]:
    """Forward, and with backward, of one clip."""
    job = made_up_job(recipe, tmp_path, 1)
    batch = collate([job.dataset[0, 0]]).batch
    assert batch is not None
    with FlopCounterMode(display=False) as forward:
        job.method.train()(batch)
    with FlopCounterMode(display=False) as both:
        job.method.train()(batch).loss.backward()
    return forward, both


def convolutions(counter: FlopCounterMode) -> int:
    counts = counter.get_flop_counts()["Global"]
    return int(sum(count for operator, count in counts.items() if CONVOLVED in str(operator)))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("changes", [{}, {"drop_path": 0.3}, {"class_token": False, "relative_time": False}], ids=str)
@pytest.mark.parametrize("widen_in", ["attention", "mlp"])
@pytest.mark.parametrize("recipe_of", [classify, predict])
def test_torch_counts_the_same(
    recipe_of: Callable[[MViTSpec], Any],
    widen_in: str,
    changes: dict[str, Any],
    checkpointing: bool,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
) -> None:
    """Forward all of it, in training the products; a depthwise convolution's gradient torch counts as a dense one's.

    How relative positions are added is a kernel's affair.
    """
    monkeypatch.setattr(pooling_attention, "attend_fused", unbiased)
    spec = replace(TINY, widen_in=widen_in, checkpointing=checkpointing, **changes)
    recipe = recipe_of(spec)
    flops = flops_of(recipe)
    forward, both = counted(recipe, tmp_path)
    assert flops.forward == forward.get_total_flops()
    embed = flops.parts[0]
    convolved = convolutions(forward) - embed.forward
    again = convolved if checkpointing else 0
    products = both.get_total_flops() - convolutions(both)
    assert flops.executed - 3 * convolved - again - embed.forward - embed.backward == products


@pytest.mark.parametrize("recipe", [classify(MVIT_S), predict(replace(TINY, widen_in="mlp"))], ids=["S", "tiny"])
def test_parameters_are_those_of_the_model(recipe: Any) -> None:
    with torch.device("meta"):
        built = recipe.model.build(recipe.clip, recipe.target if isinstance(recipe, PretrainRecipe) else 400)
    assert count_parameters(recipe)["total"] == sum(value.numel() for value in built.parameters())
