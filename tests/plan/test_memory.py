"""The memory model against the tensors that a step really makes and holds."""

from __future__ import annotations

from dataclasses import replace as with_changes
from typing import Any

import pytest
import torch

from tubelet.data.dataset import collate
from tubelet.nn.attention import Attention
from tubelet.nn.block import Block as BlockModule
from tubelet.plan.count.blocks import Block
from tubelet.plan.count.memory import Memory, fused_attention
from tubelet.plan.count.shapes import Recomputed
from tubelet.plan.equipment import equipment
from tubelet.plan.holding import USABLE, Scales, share_out
from tubelet.plan.measure.kernels import Site
from tubelet.plan.measure.live import Live, attention_held
from tubelet.plan.measure.real_steps import made_up_job
from tubelet.plan.plan import count_parameters
from tubelet.recipe import EncoderRun, override
from tubelet.recipes import RECIPES
from tubelet.train.distributed.device import autocast

CPU = torch.device("cpu")
SMALL = ("clip.size=96", "clip.frames=8", "model.encoder.depth=4", "run.batch_size=2", "run.threads=1")
Recipe = EncoderRun


def recipe_of(name: str, *changes: str) -> Any:
    recipe: Any = RECIPES[name]()
    return override(recipe, [*SMALL, *changes])


def estimated(recipe: Recipe, device: str = "here", count: int = 1) -> Scales:
    batch = share_out(recipe, count)
    parameters = count_parameters(recipe)["total"]
    return Scales(recipe, batch, equipment(recipe.run, device, count), parameters=parameters)


def held_by_a_step(recipe: Recipe, tmp_path: Any) -> int:
    """Most bytes of tensors in forward and backward of a step, with those of the optimiser, which lie still."""
    job = made_up_job(recipe, tmp_path, 1)
    batch = collate([job.dataset[0, index] for index in range(recipe.run.batch_size)]).batch
    assert batch is not None
    precision = torch.bfloat16 if recipe.run.precision == "bf16" else torch.float32
    with Live() as live:
        for held in (*job.method.parameters(), *job.method.buffers(), *(one.video for one in batch.clips.values())):
            live.add(held)
        with autocast(CPU, precision):
            loss = job.method.train()(batch).loss
        loss.backward()
    return int(live.peak) + 2 * sum(value.nbytes for value in job.method.parameters())


@pytest.mark.parametrize("checkpointing", ["false", "true", "2"])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("name", ["videomae-s-small-pretrain", "videomae-s-small-finetune"])
def test_the_estimate_is_what_a_step_holds(name: str, precision: str, checkpointing: str, tmp_path: Any) -> None:
    changes = [f"run.precision={precision}", f"model.encoder.checkpointing={checkpointing}"]
    if "pretrain" in name:
        changes.append(f"model.decoder.checkpointing={checkpointing}")
    if "finetune" in name:
        changes.append("mixing.cutmix=0")  # mixup takes most, and is now in every step
    recipe = recipe_of(name, *changes)
    memory = estimated(recipe).weigh("one device")
    assert memory.peak == pytest.approx(held_by_a_step(recipe, tmp_path), rel=0.05)


@pytest.mark.parametrize("tail", [False, True])
@pytest.mark.parametrize("layer_scale", [None, 0.1])
def test_what_a_block_keeps_is_counted_exactly(tail: bool, layer_scale: float | None) -> None:
    """In fp32, where attention is PyTorch's fused kernel on every device."""
    tokens, rows, width, heads = 40, 24 if tail else 40, 32, 4
    module = BlockModule(Attention(width, heads), mlp_ratio=4.0, layer_scale=layer_scale)
    given = torch.randn(3, tokens, width, requires_grad=True)
    kept: dict[int, int] = {}

    def note(value: torch.Tensor) -> torch.Tensor:
        kept[value.untyped_storage()._cdata] = value.untyped_storage().nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
        result = module.tail(given, rows) if tail else module(given)
    for weight in module.parameters():
        kept.pop(weight.untyped_storage()._cdata, None)
    kept.pop(result.untyped_storage()._cdata, None)
    block = Block(tokens, rows, width, 4 * width, heads, scaled=layer_scale is not None)
    counted = 3 * (block.needs(4, on_cpu=True).kept + fused_attention(block.core, 4).kept)
    assert sum(kept.values()) == pytest.approx(counted, rel=0.01)


def test_the_kernel_that_is_here_is_looked_at() -> None:
    block = Block(96, 64, 32, 128, 4)
    fused = fused_attention(block.core, 4)
    found = attention_held(Site(CPU, torch.float32), 4)(block.core, 4)
    assert found.kept == pytest.approx(fused.kept, rel=0.01)
    assert found.backward <= fused.backward


def test_sharing_pieces_and_checkpointing_take_less() -> None:
    recipe = recipe_of("videomae-s-small-finetune", "run.batch_size=32", "ema=0.99")
    whole, spread = (estimated(recipe, "H100", 8).weigh(form) for form in ("ddp", "fsdp"))
    assert spread.peak < whole.peak
    assert spread.optimiser == pytest.approx(whole.optimiser / 8, rel=1e-4)
    assert spread.average == pytest.approx(whole.average / 8, rel=1e-4)
    pieces = estimated(recipe_of("videomae-s-small-finetune", "run.batch_size=32", "run.accumulate=4"), "H100")
    one = estimated(recipe_of("videomae-s-small-finetune", "run.batch_size=32"), "H100")
    assert pieces.weigh("one device").peak < one.weigh("one device").peak
    kept, recomputed = (one.weigh("one device", recomputed=which).peak for which in (Recomputed(), Recomputed(4)))
    assert recomputed < kept


def parts_of(memory: Memory) -> int:
    """What is named, without activations: those are not all there at every moment."""
    return memory.weights + memory.average + memory.optimiser + memory.batch


def test_the_largest_piece_fits_and_one_clip_more_does_not() -> None:
    recipe = recipe_of("videomae-s-small-pretrain", "run.batch_size=64")
    scales = estimated(recipe, "L4")
    holding = scales.holdings()[0]
    usable = USABLE * 24e9
    assert scales.weigh("one device", clips=holding.largest_piece).peak <= usable
    assert scales.weigh("one device", clips=holding.largest_piece + 1).peak > usable
    assert parts_of(holding.memory) < holding.memory.peak


def test_live_counts_storages_once_and_forgets_the_dead() -> None:
    with Live() as live:
        first = torch.zeros(100)
        view = first[10:]
        assert live.now == 400
        del first
        assert live.now == 400
        del view
        assert (live.now, live.peak) == (0, 400)


def test_shapes_change_with_the_recipe() -> None:
    recipe = recipe_of("videomae-s-small-pretrain")
    scales, more = estimated(recipe), estimated(recipe_of("videomae-s-small-pretrain", "run.batch_size=4"))
    few, many = scales.weigh("one device"), more.weigh("one device")
    assert many.activations["encoder"] == 2 * few.activations["encoder"]
    assert many.weights == few.weights
    assert with_changes(few, batch=many.batch).batch == 2 * few.batch
