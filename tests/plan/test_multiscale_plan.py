"""Memory, time and plans of runs with a multiscale encoder, or with images: the same questions as for a ViT's."""

from __future__ import annotations

from typing import Any, Final

import pytest
import torch

from tubelet.data.dataset import collate
from tubelet.masks import Tube
from tubelet.methods.classifier import ClassifierSpec
from tubelet.methods.predictor import MaskedPredictorSpec
from tubelet.models.mvit.model import MVIT_L, MVIT_S, MViTSpec, MViTStage
from tubelet.models.vit import ViTSpec
from tubelet.nn.mixing import NO_MIXING
from tubelet.plan.count.memory import MemoryModel, share_out
from tubelet.plan.count.step import plan_step
from tubelet.plan.count.trace import Live
from tubelet.plan.equipment import Device, equipment
from tubelet.plan.measure.operators import step_seconds
from tubelet.plan.measure.real_steps import made_up_job
from tubelet.plan.plan import Plan, Question, make_plan
from tubelet.recipe import Data, EncoderRun, FinetuneRecipe, PretrainRecipe, Run
from tubelet.spec import replace
from tubelet.targets.hog import Hog
from tubelet.targets.pixels import FramePixels, NormalisedPixels, Pixels
from tubelet.targets.unions import Target
from tubelet.train.distributed.device import autocast
from tubelet.types import ClipShape, Cube

CPU: Final = torch.device("cpu")
CLIP: Final = ClipShape(frames=8, size=64)
SMALL: Final = MViTSpec(width=32, depth=5, stages=(MViTStage(start=1), MViTStage(start=3)), kv_stride=(1, 4, 4))
Recipe = EncoderRun


def run_in(precision: Any, clips: int = 2) -> Run:
    return Run(batch_size=clips, precision=precision, threads=1, device="cpu")


def classify(encoder: MViTSpec, precision: str = "fp32", clip: ClipShape = CLIP) -> FinetuneRecipe:
    model = ClassifierSpec(encoder=encoder, pooling="class" if encoder.class_token else "mean")
    return FinetuneRecipe(name="a", classes=9, clip=clip, model=model, mixing=NO_MIXING, run=run_in(precision))


def predict(encoder: MViTSpec, precision: str = "fp32", clip: ClipShape = CLIP) -> PretrainRecipe:
    model = MaskedPredictorSpec(encoder=replace(encoder, widen_in="mlp"))
    return PretrainRecipe(name="a", clip=clip, model=model, mask=Tube(ratio=0.4), target=Hog(), run=run_in(precision))


def estimated(recipe: Recipe) -> MemoryModel:
    return MemoryModel(plan_step(recipe), share_out(recipe, 1), equipment(recipe.run, "here", 1))


def held_by_a_step(recipe: Recipe, tmp_path: Any) -> int:
    """Most bytes of tensors in a step, with those of the optimiser, which lie still."""
    job = made_up_job(recipe, tmp_path, 1)
    batch = collate([job.dataset[0, index] for index in range(recipe.run.batch_size)]).batch
    assert batch is not None
    with Live() as live:
        for held in (*job.method.parameters(), *job.method.buffers(), *(one.video for one in batch.clips.values())):
            live.add(held)
        with autocast(CPU, torch.bfloat16 if recipe.run.precision == "bf16" else torch.float32):
            loss = job.method.train()(batch).loss
        loss.backward()
    return int(live.peak) + 2 * sum(value.nbytes for value in job.method.parameters())


CHANGES: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"checkpointing": True},
    {"last_stage_stride": 1, "drop_path": 0.2},
    {"absolute_positions": True},
    {"class_token": False, "relative_space": False, "relative_time": False, "residual_pooling": False},
)


@pytest.mark.parametrize("changes", CHANGES, ids=str)
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("recipe_of", [classify, predict])
def test_the_estimate_is_what_a_step_holds(recipe_of: Any, precision: str, changes: Any, tmp_path: Any) -> None:
    recipe = recipe_of(replace(SMALL, **changes), precision)
    assert estimated(recipe).estimate("one device").peak == pytest.approx(held_by_a_step(recipe, tmp_path), rel=0.05)


TARGETS: Final = (
    Hog(),
    Hog(frames="all"),
    Hog(colours="grey"),
    Hog(norm="block2_clipped", frames="centre"),
    Hog(bins=18, window=8),
    NormalisedPixels(),
    Pixels(),
    FramePixels(),
)


@pytest.mark.parametrize("target", TARGETS, ids=repr)
@pytest.mark.parametrize("clips", [1, 4])
@pytest.mark.parametrize("wanted", [2, 12])
def test_a_target_says_what_it_takes(target: Target, clips: int, wanted: int) -> None:
    clip, cube = ClipShape(frames=4, size=64), Cube(2, 16, 16)
    video = torch.arange(clips * 3 * 4 * 64 * 64).mul(7).remainder(251).to(torch.uint8).view(clips, 3, 4, 64, 64)
    index = torch.arange(wanted).expand(clips, wanted).contiguous()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        target.rows(video, index, cube)
        with Live() as live:
            live.add(video)
            given = live.now
            target.rows(video, index, cube)
        told = target.peak_bytes(clip, cube, rows=clips * wanted, clips=clips, on_cpu=True)
    finally:
        torch.set_num_threads(threads)
    assert told == pytest.approx(live.peak - given, rel=0.1)


def test_making_hog_is_the_peak_where_backward_needs_less(tmp_path: Any) -> None:
    """Its arrays are there beside all activations, for it is asked for between forward and backward."""
    recipe = replace(predict(SMALL), target=Hog(frames="all"))
    memory = estimated(recipe).estimate("one device")
    assert memory.moment == "forward of the target"
    assert memory.peak == pytest.approx(held_by_a_step(recipe, tmp_path), rel=0.05)


def gpu_plan(recipe: Any, name: str = "H100", count: int = 1) -> Plan:
    return make_plan(recipe, Question(device=name, count=count, videos=1000))


def test_a_plan_for_a_gpu_needs_no_gpu() -> None:
    recipe: Any = predict(replace(MVIT_S, last_stage_stride=1), clip=ClipShape())
    plan = gpu_plan(replace(recipe, run=Run(batch_size=64)))
    assert plan.shapes.seen == 8 * 56 * 56
    assert plan.shapes.out_grid.tokens == 8 * 14 * 14
    assert 0 < plan.shapes.wanted < 8 * 14 * 14
    assert plan.recomputed.peak < plan.kept.peak == plan.placements[0].memory.peak
    assert plan.placements[0].largest_piece > 1
    assert plan.fewest is not None
    assert plan.fewest.count == 1
    assert plan.course is not None


def test_recomputing_and_devices_help_a_large_model() -> None:
    recipe: Any = classify(MVIT_L, clip=ClipShape(frames=40, size=312))
    recipe = replace(recipe, run=Run(batch_size=64))
    fits = gpu_plan(recipe, "H100").placements[0].largest_piece
    again = replace(recipe, model=replace(recipe.model, encoder=replace(recipe.model.encoder, checkpointing=True)))
    assert 0 < fits < gpu_plan(again).placements[0].largest_piece
    whole, spread = gpu_plan(recipe, "H100", 8).placements
    assert spread.memory.optimiser < whole.memory.optimiser / 7


def test_real_steps_stand_beside_the_estimate() -> None:
    """Time is not compared: another process may be running."""
    plan = make_plan(replace(predict(SMALL), run=run_in("fp32", 4)), Question(videos=80, steps=1))
    assert plan.measured is not None
    assert plan.placements[0].memory.peak == pytest.approx(plan.measured.peak_bytes, rel=0.2)
    assert set(plan.speed.by_part) == {"patch embedding", "encoder", "head and loss", "update"}
    assert all(seconds > 0 for seconds in plan.speed.by_part.values())


def test_an_image_is_planned_as_a_clip_of_one_frame(tmp_path: Any) -> None:
    encoder = ViTSpec(width=48, depth=2, heads=2, patch=16, tubelet=1)
    recipe = PretrainRecipe(
        name="image",
        clip=ClipShape(frames=1, size=64),
        data=Data(workers=0),
        model=MaskedPredictorSpec(encoder=encoder),
        mask=Tube(ratio=0.4),
        target=Hog(),
        run=run_in("fp32", 8),
    )
    plan = make_plan(recipe, Question(videos=80, steps=0))
    assert (plan.shapes.grid.t, plan.shapes.seen, plan.shapes.clip_bytes) == (1, 16, 3 * 64 * 64)
    assert plan.placements[0].memory.peak == pytest.approx(held_by_a_step(recipe, tmp_path), rel=0.07)


def test_measuring_draws_nothing_of_its_own() -> None:
    state = torch.get_rng_state()
    step = plan_step(classify(replace(SMALL, drop_path=0.5)))
    found = step_seconds(step, Device(CPU, torch.float32), clips=1, pieces=1.0, clip_flops=10**9)
    assert torch.equal(state, torch.get_rng_state())
    assert all(seconds > 0 for seconds in found.values())
