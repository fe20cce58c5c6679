"""A plan tells what the teacher of a distillation adds to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toy_run import CLASSES, finetune_recipe, pretrain_recipe

from tubelet.plan.plan import Question, make_plan
from tubelet.recipe import override
from tubelet.train.building import build_method
from tubelet.train.checkpoint.export import write_model

H100 = Question(device="H100", videos=100)


def notes(*changes: str) -> tuple[str, ...]:
    return make_plan(finetune_recipe(*changes), H100).notes


def test_a_plan_says_what_a_teacher_adds(tmp_path: Path) -> None:
    larger = finetune_recipe("model.encoder.width=96", "model.encoder.depth=3")
    built: Any = larger.model.build(larger.clip, CLASSES)
    write_model(tmp_path, larger, built.state_dict())
    forward = make_plan(larger, H100).flops.forward
    student = make_plan(finetune_recipe(), H100).flops.training
    numbers = sum(value.numel() for value in built.parameters())
    [note] = notes(f"distill.teacher={tmp_path}")
    assert note == (
        "the teacher's forward pass and weights are not in these numbers: "
        f"{forward / 1e9:.4g} G a clip, {100 * forward / student:.0f}% of the student's training; "
        f"{numbers * 4 / 1e9:.3g} GB whole on each device"
    )
    assert notes() == ()


def test_a_teacher_that_is_not_here_or_none_is_said(tmp_path: Path) -> None:
    [missing] = notes("distill.teacher=nowhere")
    assert missing.endswith("with distill.teacher naming one that is here they would be told")
    masked = pretrain_recipe()
    write_model(tmp_path, masked, build_method(masked).state_dict())
    with pytest.raises(ValueError, match="so it cannot be a teacher"):
        make_plan(override(finetune_recipe(), [f"distill.teacher={tmp_path}"]), H100)
