"""`tubelet plan`: what a run takes, before it is started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tubelet.cli.terminal.common import Changes, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tubelet.plan.count.memory import DevicePlacement, Memory, PlannedBatch
    from tubelet.plan.plan import Plan
    from tubelet.types import Grid

_GB: Final = 1e9


def plan(
    recipe: Recipe,
    changes: Changes = None,
    device: Annotated[
        str, typer.Option(help="A GPU (H100, A100, L4, ...), or 'here': measure operators and steps on this machine.")
    ] = "here",
    gpus: Annotated[int, typer.Option(min=1, help="How many of them share the batch.")] = 1,
    videos: Annotated[int | None, typer.Option(min=1, help="Videos to train on, where the data are not here.")] = None,
    mfu: Annotated[
        float | None, typer.Option(min=0.001, max=1, help="Share of the GPU's peak that steps are assumed to reach.")
    ] = None,
    steps: Annotated[int, typer.Option(min=0, help="Real steps to take here, beside the estimate; 0: none.")] = 3,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Show what a run of a recipe takes: parameters, FLOPs, memory, steps, hours. Trains nothing.

    Example: `tubelet plan videomae-b-k400-800-pretrain --gpus 8 --device H100 --videos 240000`
    """
    from tubelet.plan.plan import ASSUMED_EFFICIENCY, Question
    from tubelet.recipes.load import load_any_recipe
    from tubelet.runs.kinds import plan_run

    question = Question(
        device=device, count=gpus, videos=videos, efficiency=ASSUMED_EFFICIENCY if mfu is None else mfu, steps=steps
    )
    made = plan_run(load_any_recipe(recipe, changes or []), question)
    typer.echo(_as_json(made) if json else "\n".join(f"{name:<12} {text}".rstrip() for name, text in _lines(made)))


def _lines(plan: Plan) -> Iterator[tuple[str, str]]:
    """Name and text of each line."""
    clip = plan.recipe.clip
    frames = "an image" if clip.frames == 1 else f"{clip.frames} frames"
    yield "recipe", f"{plan.recipe.name}: {frames} of {clip.size} x {clip.size}"
    parts = ", ".join(f"{name} {_millions(count)}" for name, count in plan.parameters.items() if name != "total")
    yield "parameters", f"{_millions(plan.parameters['total'])} ({parts})"
    yield "tokens", _tokens(plan)
    yield from _flops(plan)
    yield "devices", _devices(plan)
    yield "batch", _batch(plan)
    for placement in plan.placements:
        yield from _placement(placement, plan.batch)
    yield "", _recomputed(plan)
    yield "fewest", _fewest(plan)
    if plan.equipment.count > 1:
        whole = f"{4 * plan.parameters['total'] / _GB:.2f} GB"
        yield "host", f"fsdp: the first process holds all weights, {whole}, at the start and when it writes model/"
    yield from _time(plan)
    for note in plan.notes:
        yield "note", note


def _tokens(plan: Plan) -> str:
    grid, shapes = plan.shapes.grid, plan.shapes
    text = f"{_sides(grid)}; the encoder sees {shapes.seen:,}"
    if shapes.out_grid != grid:
        text = f"{text} and gives {_sides(shapes.out_grid)}"
    if shapes.wanted and not shapes.has_decoder:
        return f"{text}, with mask tokens for what is hidden; it predicts {shapes.wanted:,}"
    return f"{text}, the decoder predicts {shapes.wanted:,}" if shapes.wanted else text


def _sides(grid: Grid) -> str:
    return f"{grid.t} x {grid.h} x {grid.w} = {grid.tokens:,}"


def _flops(plan: Plan) -> Iterator[tuple[str, str]]:
    flops = plan.flops
    parts = ", ".join(f"{part.name} {part.forward / 1e9:.4g}" for part in flops.parts)
    again = f"; {flops.executed / 1e9:.4g} G with what is recomputed" if flops.executed > flops.training else ""
    yield "FLOPs", f"a clip forward {flops.forward / 1e9:.4g} G ({parts})"
    yield "", f"a clip in training {flops.training / 1e9:.4g} G{again}"


def _devices(plan: Plan) -> str:
    devices = plan.equipment
    precision = "bf16" if devices.number == 2 else "fp32"
    measured = "measured matrix product" if not devices.on_gpu else "data sheet"
    peak = "unknown peak" if devices.peak is None else f"{devices.peak / 1e12:.4g} TFLOP/s in {precision} ({measured})"
    share = "" if plan.efficiency is None else f", of which {plan.efficiency:.0%} assumed (--mfu)"
    return f"{devices.count} x {devices.name}, {devices.memory_bytes / _GB:.0f} GB, {peak}{share}"


def _batch(plan: Plan) -> str:
    batch = plan.batch
    views = plan.recipe.data.views
    clips = f"{batch.videos:,} videos" if views == 1 else f"{batch.videos:,} videos, {views} clips of each"
    pieces = "" if batch.pieces == 1 else f" in {batch.pieces} pieces of {batch.clips_per_piece:,}"
    return f"{clips} a step; {batch.clips_per_device:,} clips on each device{pieces}"


def _placement(placement: DevicePlacement, batch: PlannedBatch) -> Iterator[tuple[str, str]]:
    memory = placement.memory
    largest = "not one clip fits"
    if placement.largest_piece:
        fewest = -(-batch.clips_per_device // placement.largest_piece)
        enough = f" (run.accumulate={fewest} is enough)" if fewest < batch.pieces else ""
        largest = f"pieces of up to {placement.largest_piece:,} clips fit{enough}"
    yield "memory", f"{placement.form}: {memory.peak / _GB:.2f} GB at the {memory.moment}; {largest}"
    yield "", _contents(memory)


def _recomputed(plan: Plan) -> str:
    kept, recomputed, lightest = (one.peak / _GB for one in (plan.kept, plan.recomputed, plan.lightest))
    text = f"encoder kept {kept:.2f} GB"
    if plan.shapes.can_recompute:
        text += f", recomputed (model.encoder.checkpointing=true) {recomputed:.2f} GB"
    decoder = f", the decoder too (model.decoder.checkpointing=true) {lightest:.2f} GB"
    return text + decoder if plan.shapes.has_decoder else text


def _fewest(plan: Plan) -> str:
    fewest, devices = plan.fewest, plan.equipment
    if fewest is None:
        return f"no number of {devices.name} holds it: one clip takes more memory than a device has"
    shared = " with run.parallel=fsdp" if fewest.count > 1 else ""
    fit = f"one clip in a piece {fewest.memory.peak / _GB:.2f} GB, pieces of up to {fewest.largest_piece:,} fit"
    return f"{fewest.count} x {devices.name}{shared}: {fit}"


def _contents(memory: Memory) -> str:
    shown = {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "AdamW": memory.optimiser,
        "average": memory.average,
        "bf16 copies": memory.copies,
        "clips": memory.batch,
        "passing": memory.passing,
    }
    kept = ", ".join(f"{name} {count / _GB:.3g}" for name, count in memory.activations.items() if count)
    return ", ".join(f"{name} {count / _GB:.3g}" for name, count in shown.items() if count) + f"; activations: {kept}"


def _time(plan: Plan) -> Iterator[tuple[str, str]]:
    speed, course = plan.speed, plan.course
    yield "step", f"{_short(speed.step_seconds)} s, {_short(speed.clips_per_second)} clips/s"
    if speed.by_part:
        yield "", ", ".join(f"{name} {_short(seconds)} s" for name, seconds in speed.by_part.items())
    if course is None:
        yield "run", "how many videos? --videos N, or data in the recipe, gives steps and hours"
    else:
        effective = "" if course.effective_epochs == course.epochs else f" ({course.effective_epochs:,} effective)"
        yield "run", f"{course.videos:,} videos, {course.epochs:,} epochs{effective}"
        yield "", f"{course.steps:,} steps, {course.steps_per_epoch:,} an epoch"
        yield "", f"{_short(course.hours)} hours, {_short(course.device_hours)} device hours"
    if plan.measured is not None:
        seconds, peak = plan.measured.seconds, plan.measured.peak_bytes
        yield "measured", f"step {_short(seconds)} s, estimate {speed.step_seconds / seconds - 1:+.0%}"
        yield "", f"memory {weighed(peak, plan.placements[0].memory.peak)}"
        if plan.measured.runtime_bytes:
            loose = plan.measured.loose_peak_bytes / _GB
            yield "", f"with what the allocator keeps for later {loose:.3g} GB"
            yield "", f"and {plan.measured.runtime_bytes / _GB:.2g} GB for Python, PyTorch and its kernels"


def weighed(peak: int, estimate: int) -> str:
    """What a measured peak says of the estimate, both in bytes; 0 is a peak that was not seen."""
    if peak == 0:
        return "of these steps is lost in that of Python, PyTorch and its kernels: too small to be measured"
    return f"{peak / _GB:.3g} GB, estimate {estimate / peak - 1:+.0%}"


def _short(value: float) -> str:
    """Three digits at least."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M"


def _as_json(plan: Plan) -> str:
    import json
    from dataclasses import asdict

    facts: dict[str, Any] = {
        "recipe": plan.recipe.name,
        "parameters": plan.parameters,
        "tokens": {
            **plan.shapes.grid._asdict(),
            **{"seen": plan.shapes.seen, "out": plan.shapes.out_grid.tokens, "wanted": plan.shapes.wanted},
        },
        "flops": {
            **{name: getattr(plan.flops, name) for name in ("forward", "training", "executed")},
            "parts": [asdict(part) for part in plan.flops.parts],
        },
        "devices": {
            "name": plan.equipment.name,
            "count": plan.equipment.count,
            "precision": str(plan.equipment.precision).removeprefix("torch."),
            "memory_bytes": plan.equipment.memory_bytes,
            "peak_flops": plan.equipment.peak,
            "assumed_mfu": plan.efficiency,
        },
        "batch": asdict(plan.batch),
        "memory": [asdict(placement) for placement in plan.placements],
        "peak_bytes": {
            **{"kept": plan.kept.peak, "recomputed": plan.recomputed.peak},
            "recomputed_with_decoder": plan.lightest.peak,
        },
        "fewest": None if plan.fewest is None else asdict(plan.fewest),
        "speed": asdict(plan.speed),
        "course": None if plan.course is None else asdict(plan.course),
        "measured": None if plan.measured is None else asdict(plan.measured),
        "notes": list(plan.notes),
    }
    return json.dumps(facts, indent=2)
