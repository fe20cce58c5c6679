"""A plan counts right, follows what is asked, refuses what cannot be, and stands beside real steps."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from toy_dvae import write_dvae
from toy_run import finetune_recipe, pretrain_recipe

from tubelet.models.tokenizers.dvae import DvaeSpec
from tubelet.plan.plan import Plan, Question, count_parameters, make_plan
from tubelet.recipe import encoder_run, override
from tubelet.recipes import RECIPES
from tubelet.spec import replace
from tubelet.weights.tensors.files import read_tensors

H100S = Question(device="H100", count=8, videos=240_000, efficiency=0.4)


def plan_b(*changes: str, question: Question = H100S) -> Plan:
    recipe: Any = RECIPES["videomae-b-k400-800-pretrain"]()
    return make_plan(override(recipe, list(changes)), question)


def test_a_plan_counts_steps_and_hours() -> None:
    plan = plan_b("data.views=2")
    course = plan.course
    assert course is not None
    assert (course.steps_per_epoch, course.steps) == (117, 117 * 800)
    assert (course.epochs, course.effective_epochs) == (800, 1600)
    assert (plan.batch.clips, plan.batch.clips_per_device, plan.batch.clips_per_piece) == (4096, 512, 16)
    seconds = 512 * plan.flops.training / (989.4e12 * 0.4)
    assert plan.speed.step_seconds == pytest.approx(seconds)
    assert course.hours == pytest.approx(seconds * 117 * 800 / 3600)
    assert course.device_hours == 8 * course.hours
    assert plan.speed.clips_per_second == pytest.approx(4096 / seconds)


def test_more_devices_take_less_time_and_recomputing_takes_more() -> None:
    one, two = (plan_b(question=Question(device="A100", count=count)) for count in (1, 2))
    assert one.speed.step_seconds == pytest.approx(2 * two.speed.step_seconds)
    again = plan_b("model.encoder.checkpointing=true", question=Question(device="A100"))
    assert again.speed.step_seconds / one.speed.step_seconds == again.flops.executed / one.flops.executed > 1


def test_forms_are_those_that_the_devices_allow() -> None:
    assert [placement.form for placement in plan_b().placements] == ["ddp", "fsdp"]
    assert [placement.form for placement in plan_b(question=Question(device="L4")).placements] == ["one device"]


@pytest.mark.parametrize("depth", [32, 128])
def test_the_fewest_devices_are_those_that_hold_a_step_and_no_fewer(depth: int) -> None:
    base: Any = RECIPES["videomae-h-k400-1600-pretrain"]()
    recipe = override(base, [f"model.encoder.depth={depth}"])
    fewest = make_plan(recipe, Question(device="T4", count=64)).fewest
    assert fewest is not None
    assert 64 > fewest.count > 1
    assert fewest.memory.peak <= 0.9 * 16e9
    pieces = override(recipe, [f"run.accumulate={1024 // fewest.count}"])
    assert make_plan(pieces, Question(device="T4", count=fewest.count)).placements[-1].memory.peak == fewest.memory.peak
    half = Question(device="T4", count=fewest.count // 2)
    assert make_plan(pieces, half).placements[-1].largest_piece == 0


def test_where_not_one_clip_fits_no_number_of_devices_is_enough() -> None:
    plan = plan_b("clip.frames=4096", question=Question(device="T4", count=8))
    assert plan.fewest is None


def test_the_decoder_may_be_recomputed_too() -> None:
    plan = plan_b()
    assert plan.lightest.peak < plan.recomputed.peak < plan.kept.peak
    both = plan_b("model.encoder.checkpointing=true", "model.decoder.checkpointing=true")
    assert both.placements[0].memory.peak == plan.lightest.peak
    assert plan_b("model.encoder.checkpointing=6").flops.executed < both.flops.executed


@pytest.mark.parametrize(
    ("name", "millions"),
    [("videomae-b-k400-800-pretrain", {"encoder": 86.23, "total": 94.21}),
     ("videomae-h-k400-1600-finetune", {"total": 632.12}),
     ("videomae-s-k400-1600-finetune", {"total": 22.03})],
)  # fmt: skip
def test_parameters_are_the_published_ones(name: str, millions: dict[str, float]) -> None:
    counted = count_parameters(encoder_run(RECIPES[name](), name))
    for part, wanted in millions.items():
        assert counted[part] / 1e6 == pytest.approx(wanted, abs=0.006)


def test_planning_a_huge_model_holds_no_weights() -> None:
    """ViT-H takes 2.5 GB; the process may have 1.5 GB of address space more than PyTorch and this package take."""
    script = (
        "import resource; from pathlib import Path\n"
        "from tubelet.recipes import RECIPES; from tubelet.plan.plan import Question, make_plan\n"
        "recipe = RECIPES['videomae-h-k400-1600-finetune']()\n"
        "taken = int(Path('/proc/self/statm').read_text().split()[0]) * 4096\n"
        "resource.setrlimit(resource.RLIMIT_AS, (taken + 1_500_000_000,) * 2)\n"
        "print(make_plan(recipe, Question(device='H100', count=64)).parameters['total'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("6321"), done.stderr[-500:]


def test_videos_of_the_data_are_counted(tmp_path: Any) -> None:
    listed = tmp_path / "train.csv"
    listed.write_text("".join(f"{index}.mp4 {index % 3}\n" for index in range(9)))
    for index in range(9):
        (tmp_path / f"{index}.mp4").touch()
    recipe = finetune_recipe()
    recipe = replace(recipe, data=replace(recipe.data, train=str(listed)), schedule=replace(recipe.schedule, epochs=5))
    course = make_plan(recipe, Question(device="L4")).course
    assert course is not None
    assert (course.videos, course.steps) == (9, 10)


def test_without_videos_there_is_no_course() -> None:
    assert plan_b(question=Question(device="L4")).course is None


def test_unknown_classes_are_a_note() -> None:
    recipe = replace(finetune_recipe(), classes=None)
    plan = make_plan(recipe, Question(device="L4", videos=100))
    assert any("400" in note for note in plan.notes)
    assert plan.shapes.outputs == 400


@pytest.mark.parametrize(
    ("changes", "question", "message"),
    [
        ([], Question(device="H100", count=3), "2048 is not a multiple of the 3 devices"),
        ([], Question(device="H1000"), "unknown device 'H1000'; did you mean 'h100'"),
        (["run.precision=bf16"], Question(device="V100"), "V100 has no units for bf16"),
        ([], Question(device="H100", videos=100), "larger than the 100 videos"),
    ],
)
def test_what_cannot_be_is_refused(changes: list[str], question: Question, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_b(*changes, question=question)


def test_auto_precision_follows_the_device() -> None:
    assert plan_b(question=Question(device="V100")).equipment.peak == 15.7e12
    assert plan_b(question=Question(device="A100")).equipment.peak == 312e12


def test_real_steps_stand_beside_the_estimate() -> None:
    recipe = pretrain_recipe("clip.size=64", "model.encoder.width=96", "run.batch_size=8")
    recipe = replace(recipe, data=replace(recipe.data, videos=None))
    plan = make_plan(recipe, Question(videos=80, steps=2))
    assert plan.measured is not None
    assert set(plan.speed.by_part) == {"patch embedding", "encoder", "decoder", "head and loss", "update"}
    assert all(seconds > 0 for seconds in plan.speed.by_part.values())
    assert 0 < plan.measured.seconds < 10
    assert plan.measured.runtime_bytes > 100e6
    assert 0 < plan.measured.peak_bytes < 200e6


def test_the_file_of_a_teacher_is_read_once(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file, opened = tmp_path / "encoder.safetensors", []
    write_dvae(DvaeSpec(width=8, groups=2, blocks=1, vocabulary=11), file)

    def counted(path: Any, **options: Any) -> Any:
        opened.append(path)
        return read_tensors(path, **options)

    monkeypatch.setattr("tubelet.weights.dalle.read_tensors", counted)
    recipe = pretrain_recipe("target=tokens", f"target.teacher={file}", "model.encoder.checkpointing=true")
    plan = make_plan(recipe, Question(device="L4", videos=100))
    assert plan.shapes.outputs == 11
    assert opened == [file]


def test_steps_that_would_take_too_long_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tubelet.plan.plan.LONGEST_STEPS", 1e-6)
    recipe = pretrain_recipe()
    plan = make_plan(replace(recipe, data=replace(recipe.data, videos=None)), Question(videos=80, steps=2))
    assert plan.measured is None
    assert any("no real steps" in note for note in plan.notes)
