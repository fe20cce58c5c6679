"""The memory model against the tensors that a step really makes and holds."""

from __future__ import annotations

from dataclasses import replace as with_changes
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from tubelet.data.dataset import collate
from tubelet.plan.count.memory import USABLE, Memory, MemoryModel, share_out
from tubelet.plan.count.step import ENCODER, META, plan_step
from tubelet.plan.count.trace import GpuKernels, Live, trace_step
from tubelet.plan.equipment import equipment
from tubelet.plan.measure.real_steps import made_up_job
from tubelet.recipe import EncoderRun, override
from tubelet.recipes import RECIPES
from tubelet.train.distributed.device import autocast

CPU = torch.device("cpu")
SMALL = ("clip.size=96", "clip.frames=8", "model.encoder.depth=4", "run.batch_size=2", "run.threads=1")
Recipe = EncoderRun


def recipe_of(name: str, *changes: str) -> Any:
    recipe: Any = RECIPES[name]()
    return override(recipe, [*SMALL, *changes])


def estimated(recipe: Recipe, device: str = "here", count: int = 1) -> MemoryModel:
    return MemoryModel(plan_step(recipe), share_out(recipe, count), equipment(recipe.run, device, count))


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
    memory = estimated(recipe).estimate("one device")
    assert memory.peak == pytest.approx(held_by_a_step(recipe, tmp_path), rel=0.05)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["videomae-s-small-pretrain", "videomae-s-small-finetune"])
def test_blocks_keep_what_the_formulas_say(name: str, precision: torch.dtype) -> None:
    """On a GPU a token of a block keeps 36 D bytes in bf16, 64 D in fp32, and 4 for each head (docs/planning.md)."""
    step = plan_step(recipe_of(name))
    spec, shape = step.recipe.model.encoder, step.shape()
    kept = trace_step(step, device=META, precision=precision).kept[ENCODER]
    number = 36 if precision is torch.bfloat16 else 64
    tokens = spec.depth * shape.seen
    assert kept.of(3) == pytest.approx(3 * tokens * (number * spec.width + 4 * spec.heads), rel=0.03)


@pytest.mark.parametrize("rows", [24, 40])
def test_fused_attention_keeps_what_the_kernel_here_keeps(rows: int) -> None:
    """In fp32, where attention is PyTorch's fused kernel on every device: by the saved tensors."""
    kept: list[int] = []

    def attend(device: str) -> int:
        q = torch.ones(3, 4, rows, 8, device=device, requires_grad=True)
        k, v = (torch.ones(3, 4, 40, 8, device=device, requires_grad=True) for _ in range(2))
        saved: dict[int, int] = {}

        def note(value: torch.Tensor) -> torch.Tensor:
            saved[value.untyped_storage()._cdata] = value.numel() * value.element_size()
            return value

        with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
            result = F.scaled_dot_product_attention(q, k, v)
        assert result.shape == q.shape
        kept.append(sum(saved.values()))
        return kept[-1]

    here = attend("cpu")
    with GpuKernels(torch.float32, torch.no_grad):
        assert attend("meta") == here == 3 * 4 * (4 * 8 * (2 * rows + 80) + 4 * rows)


def test_sharing_pieces_and_checkpointing_take_less() -> None:
    recipe = recipe_of("videomae-s-small-finetune", "run.batch_size=32", "ema=0.99")
    whole, spread = (estimated(recipe, "H100", 8).estimate(form) for form in ("ddp", "fsdp"))
    assert spread.peak < whole.peak
    assert spread.optimiser == pytest.approx(whole.optimiser / 8, rel=1e-4)
    assert spread.average == pytest.approx(whole.average / 8, rel=1e-4)
    pieces = estimated(recipe_of("videomae-s-small-finetune", "run.batch_size=32", "run.accumulate=4"), "H100")
    one = estimated(recipe_of("videomae-s-small-finetune", "run.batch_size=32"), "H100")
    assert pieces.estimate("one device").peak < one.estimate("one device").peak
    again = recipe_of("videomae-s-small-finetune", "run.batch_size=32", "model.encoder.checkpointing=4")
    assert estimated(again, "H100").estimate("one device").peak < one.estimate("one device").peak


def parts_of(memory: Memory) -> int:
    """What is named, without activations: those are not all there at every moment."""
    return memory.weights + memory.average + memory.optimiser + memory.batch


def test_the_largest_piece_fits_and_one_clip_more_does_not() -> None:
    recipe = recipe_of("videomae-s-small-pretrain", "run.batch_size=64")
    model = estimated(recipe, "L4")
    placement = model.placements()[0]
    usable = USABLE * 24e9
    assert model.estimate("one device", clips=placement.largest_piece).peak <= usable
    assert model.estimate("one device", clips=placement.largest_piece + 1).peak > usable
    assert parts_of(placement.memory) < placement.memory.peak


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
    model, more = estimated(recipe), estimated(recipe_of("videomae-s-small-pretrain", "run.batch_size=4"))
    few, many = model.estimate("one device"), more.estimate("one device")
    assert many.activations["encoder"] == 2 * few.activations["encoder"]
    assert many.weights == few.weights
    assert with_changes(few, batch=many.batch).batch == 2 * few.batch
