"""Distillation on real files: the student follows its teacher, which no checkpoint holds and no other may replace."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ranks import Ended, run_ranks
from safetensors.torch import load_file
from toy_labelled import LEVELS, labelled_folder, toy_recipe, tubelet, write_video
from toy_run import CLASSES, CLIP, Notes, ToySet, finetune_job, finetune_recipe, killer, pretrain_recipe, records

from tubelet.eval.evaluate import evaluate
from tubelet.methods.classifier import ClassifierSpec, Finetuning
from tubelet.methods.distillation import Distill, Distillation, Teacher
from tubelet.models.vit import ViTSpec
from tubelet.nn.mixing import Mixing
from tubelet.recipe import FinetuneRecipe, Schedule, override, to_yaml
from tubelet.rng import step_rng
from tubelet.runs.distill import columns_of, read_teacher
from tubelet.runs.finetune import finetune
from tubelet.runs.teacher_record import digest
from tubelet.spec import replace
from tubelet.train.building import build_method
from tubelet.train.checkpoint.export import write_model
from tubelet.train.checkpoint.folder import saved
from tubelet.train.distributed.signals import Interrupted
from tubelet.train.job import Job
from tubelet.train.loop import fit
from tubelet.train.optim import Ema, parameter_groups
from tubelet.train.records.log import read_log
from tubelet.train.records.watch import StepReport
from tubelet.types import ClipShape
from tubelet.weights.classifier import load_classifier
from tubelet.weights.export.huggingface import to_huggingface
from tubelet.weights.read import read_model
from tubelet.weights.tensors.rename import to_official
from tubelet.weights.videomae.names import FINETUNED

LARGER = ClassifierSpec(encoder=ViTSpec(width=48, depth=2, heads=2, patch=8), init_scale=1.0)

TEACHER = Path("teacher.pth")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_folder(tmp_path_factory.mktemp("videos"), each=8)


@pytest.fixture(scope="module")
def teacher(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A larger classifier, fine-tuned."""
    run = tmp_path_factory.mktemp("teacher") / "run"
    finetune(on(videos, model=LARGER), run, Notes())
    return run


@pytest.fixture(scope="module")
def stranger(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like the teacher, from another seed."""
    run = tmp_path_factory.mktemp("stranger") / "run"
    finetune(short(videos, model=LARGER, seed=1), run, Notes())
    return run


def on(videos: Path, **changes: object) -> FinetuneRecipe:
    recipe = toy_recipe(**changes)
    return replace(recipe, data=replace(recipe.data, train=str(videos)))


def short(videos: Path, **changes: object) -> FinetuneRecipe:
    return on(videos, schedule=Schedule(epochs=3, warmup_epochs=1), **changes)


def taught_by(teacher: Path, recipe: FinetuneRecipe, *changes: str) -> FinetuneRecipe:
    return override(recipe, [f"distill.teacher={teacher}", *changes])


def losses(out: Path) -> list[dict[str, float]]:
    return [record for record in read_log(out / "log.jsonl") if "loss" in record]


def test_a_student_follows_its_teacher_whatever_the_labels_say(videos: Path, teacher: Path, tmp_path: Path) -> None:
    """Every label is wrong here; the student has only the teacher to learn from, and does well on new videos."""
    for name, other in (("bright", "dark"), ("dark", "bright")):
        shutil.copytree(videos / name, tmp_path / "swapped" / other)
    student = taught_by(teacher, on(tmp_path / "swapped"))
    finetune(student, tmp_path / "run", Notes())
    log = losses(tmp_path / "run")
    assert log[-1]["loss"] < 0.3 * log[0]["loss"]
    assert log[-1]["agreement"] >= 0.9
    assert log[-1]["accuracy"] <= 0.1
    unseen = labelled_folder(tmp_path / "unseen", each=4, seed=7)
    assert evaluate(tmp_path / "run", unseen, watch=Notes(), clips=1, crops=1).top1 >= 0.9


def test_the_checkpoints_are_those_of_a_run_without_a_teacher(videos: Path, teacher: Path, tmp_path: Path) -> None:
    recipe = short(videos, ema=0.5)
    notes = Notes()
    finetune(recipe, tmp_path / "plain", Notes())
    finetune(taught_by(teacher, recipe), tmp_path / "taught", notes)
    for file in saved(tmp_path / "plain")[-1].glob("*.safetensors"):
        plain = {name: value.shape for name, value in load_file(file).items()}
        other = load_file(saved(tmp_path / "taught")[-1] / file.name)
        assert plain == {name: value.shape for name, value in other.items()}, file.name
    student = load_classifier(tmp_path / "taught")
    assert student.classifier.encoder.out_width == 32
    weights = load_classifier(teacher)
    assert notes.facts[0].parameters == sum(value.numel() for value in student.classifier.parameters())
    [line] = [line for line in notes.lines if line.startswith("teacher: ")]
    assert line == f"teacher: {weights.weights}, 0.08 M parameters, 2 classes matched by name"


@pytest.mark.parametrize("step", [3, 4])
def test_a_stopped_distillation_goes_on_bit_for_bit(videos: Path, teacher: Path, tmp_path: Path, step: int) -> None:
    """Also where the teacher has moved meanwhile."""
    recipe = short(videos, ema=0.5, mixing=Mixing())
    recipe = replace(recipe, data=replace(recipe.data, val=str(videos)))
    finetune(taught_by(teacher, recipe), tmp_path / "whole", Notes())
    with pytest.raises(Interrupted):
        finetune(taught_by(teacher, recipe), tmp_path / "parts", Notes(act=killer(step, signal.SIGTERM)))
    moved = Path(shutil.copytree(teacher, tmp_path / "moved"))
    finetune(taught_by(moved, recipe), tmp_path / "parts", Notes())
    assert numbers(tmp_path / "whole") == numbers(tmp_path / "parts")
    files = [*saved(tmp_path / "whole")[-1].glob("*.safetensors"), tmp_path / "whole/model/model.safetensors"]
    assert len(files) == 4
    for file in files:
        left, right = load_file(file), load_file(tmp_path / "parts" / file.relative_to(tmp_path / "whole"))
        assert left.keys() == right.keys()
        assert all(left[name].equal(right[name]) for name in left), file


def numbers(out: Path) -> list[object]:
    return [
        [one.get(name) for name in ("step", "loss", "grad_norm", "agreement", "evaluation")]
        for one in read_log(out / "log.jsonl")
        if "speed" not in one
    ]


def test_another_teacher_is_refused_and_fresh_takes_it(
    videos: Path, teacher: Path, stranger: Path, tmp_path: Path
) -> None:
    recipe = short(videos)
    with pytest.raises(Interrupted):
        finetune(taught_by(teacher, recipe), tmp_path / "run", Notes(act=killer(3, signal.SIGTERM)))
    with pytest.raises(ValueError, match="begun with another teacher than") as error:
        finetune(taught_by(stranger, recipe), tmp_path / "run", Notes())
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"distill.temperature \(3.0 -> 2.0\)"):
        finetune(taught_by(teacher, recipe, "distill.temperature=2"), tmp_path / "run", Notes())
    with pytest.raises(ValueError, match="holds a run of another recipe"):
        finetune(recipe, tmp_path / "run", Notes())
    finetune(taught_by(stranger, recipe), tmp_path / "run", Notes(), fresh=True)
    kept = json.loads((tmp_path / "run/teacher.json").read_text())
    assert kept["sha256"] == digest(load_classifier(stranger).classifier.state_dict())
    (tmp_path / "run/teacher.json").write_text("{")
    with pytest.raises(ValueError, match=r"teacher\.json: damaged"):
        finetune(taught_by(stranger, recipe), tmp_path / "run", Notes())
    finetune(recipe, tmp_path / "run", Notes(), fresh=True)
    assert not (tmp_path / "run/teacher.json").exists()


def test_classes_in_another_order_are_matched_by_name(videos: Path, teacher: Path, tmp_path: Path) -> None:
    """The labels number dark 0 and bright 1, the teacher bright 0 and dark 1; its answers are right all the same."""
    (tmp_path / "names.txt").write_text("Dark\nbright \n")
    rows = [f"{name}/{n}.mp4 {label}" for label, name in enumerate(("dark", "bright")) for n in range(8)]
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    recipe = override(short(tmp_path / "list.csv"), [f"data.root={videos}", f"data.class_names={tmp_path}/names.txt"])
    finetune(taught_by(teacher, recipe), tmp_path / "run", Notes())
    assert min(record["teacher_accuracy"] for record in losses(tmp_path / "run")) >= 0.9
    assert losses(tmp_path / "run")[-1]["accuracy"] >= 0.9


def test_columns_follow_names_else_numbers() -> None:
    assert columns_of(TEACHER, ("a b", "C", "d"), ("D", "A_b", "c")).tolist() == [2, 0, 1]
    assert columns_of(TEACHER, ("0", "1", "2"), ("D", "A_b", "c")).tolist() == [0, 1, 2]
    assert columns_of(TEACHER, ("a", "b", "c"), ("0", "1", "2")).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("names", "labels", "said"),
    [
        (("jump", "run"), ("jump", "ruin"), "'ruin' of the labels it does not know; did you mean 'run'"),
        (("jump", "run", "sit", "go"), ("jump", "run"), "'sit' and 1 more of its classes is no label"),
        (("0", "1", "2"), ("jump", "run"), "the teacher has 3 classes, the labels 2; distillation needs"),
        (("jump", "run", "Run"), ("jump", "run"), "some names are one class twice"),
    ],
)
def test_other_classes_are_refused_in_one_line(names: tuple[str, ...], labels: tuple[str, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said) as error:
        columns_of(TEACHER, names, labels)
    assert "\n" not in str(error.value)


def test_a_teacher_that_cannot_be_is_refused_in_one_line(videos: Path, teacher: Path, tmp_path: Path) -> None:
    recipe = short(videos)
    masked = pretrain_recipe()
    write_model(tmp_path / "pre", masked, build_method(masked).state_dict())
    (tmp_path / "cut.safetensors").write_bytes((teacher / "model/model.safetensors").read_bytes()[:1000])
    write_video(tmp_path / "three/jump/a.mp4", 100, seed=1)
    shutil.copytree(videos, tmp_path / "three", dirs_exist_ok=True)
    longer = replace(recipe, clip=ClipShape(frames=8, size=16))
    cases = {
        "a pretrain run has no classes": taught_by(tmp_path / "pre", recipe),
        "no such teacher": taught_by(tmp_path / "nowhere", recipe),
        "truncated, or not a safetensors": taught_by(tmp_path / "cut.safetensors", recipe),
        "no teacher to learn from: give a fine-tuned run": replace(recipe, distill=Distill()),
        "the teacher has 2 classes, the labels 3": taught_by(teacher, on(tmp_path / "three")),
        "takes clips of 4 frames, this recipe of 8: set clip.frames=4": taught_by(teacher, longer),
    }
    for said, wrong in cases.items():
        with pytest.raises(ValueError, match=said) as error:
            finetune(wrong, tmp_path / "run", Notes())
        assert "\n" not in str(error.value)
        assert not (tmp_path / "run").exists(), said


def test_the_command_takes_a_teacher(videos: Path, teacher: Path, tmp_path: Path) -> None:
    (tmp_path / "toy.yaml").write_text(to_yaml(short(videos)))
    options = ["finetune", "toy.yaml", "--out", "run", "distill.temperature=2", "distill.label_weight=0.5"]
    bad = tubelet(tmp_path, *options, "--teacher", "nowhere")
    assert bad.returncode == 2
    assert bad.stderr.splitlines()[1:] == [
        "tubelet: nowhere: no such teacher; give a fine-tuned run or a classifier's file with --teacher"
    ]
    done = tubelet(tmp_path, *options, "--teacher", str(teacher))
    assert done.returncode == 0, done.stderr
    recipe = load_classifier(tmp_path / "run").recipe
    assert recipe.distill == Distill(teacher=str(teacher), temperature=2.0, label_weight=0.5)


def test_a_teacher_of_any_origin_is_the_same_teacher(tmp_path: Path) -> None:
    """As the authors save it, as a Hugging Face folder, as a run of ours: one digest, one answer."""
    spec = ClassifierSpec(encoder=ViTSpec(width=192, depth=1, heads=3, patch=8), init_scale=1.0)
    clip = ClipShape(frames=4, size=24)
    with step_rng(0, 0):
        classifier = spec.build(clip, 2)
    options = argparse.Namespace(model="vit_base_patch16_224", num_frames=4, input_size=24, nb_classes=2)
    torch.save({"module": to_official(classifier.state_dict(), FINETUNED), "args": options}, tmp_path / "released.pth")
    to_huggingface(read_model(tmp_path / "released.pth"), tmp_path / "folder")
    found = []
    for path in ("released.pth", "folder"):
        notes = Notes()
        taught = read_teacher(taught_by(tmp_path / path, toy_recipe()), tuple(LEVELS), notes)
        assert taught is not None
        found.append((taught.sha256, taught.teacher(torch.full((1, 3, 4, 16, 16), 99, dtype=torch.uint8))))
        assert "matched by number" in notes.lines[0]
        assert "resized from 16 to 24 pixels" in notes.lines[0]
    assert found[0][0] == found[1][0] == digest(classifier.state_dict())
    torch.testing.assert_close(found[0][1], found[1][1])


def distill_job(out: Path, *changes: str) -> Job:
    """As `finetune_job`, with a teacher of fixed weights."""
    plain = finetune_job(out, *changes, dataset=ToySet(labelled=True))
    with step_rng(5, 0):
        teacher = Teacher(LARGER.build(CLIP, CLASSES), columns=torch.tensor([2, 0, 1]))
    tuned = plain.method
    assert isinstance(tuned, Finetuning)
    recipe = finetune_recipe(*changes)
    method = Distillation(tuned.classifier, recipe.mixing, teacher=teacher, distill=Distill(label_weight=0.1))
    groups = parameter_groups(method, weight_decay=0.05, layer_decay=0.75, encoder=method.classifier.encoder)
    return Job(recipe, out, method, groups, plain.dataset, ema=Ema(method, decay=0.9))


@pytest.mark.parametrize(
    ("parallel", "changes"),
    [("ddp", ()), ("fsdp", ()), ("ddp", ("run.accumulate=2",)), ("fsdp", ("run.accumulate=2",))],
)
def test_ranks_and_pieces_give_the_losses_of_one_process(
    parallel: str, changes: tuple[str, ...], tmp_path: Path
) -> None:
    """The divergence is 9 times a small difference of logarithms, each of which is right to 1e-7."""
    size = ("run.batch_size=4", "schedule.epochs=2", *(("mixing.probability=0",) if changes else ()))
    fit(distill_job(tmp_path / "one", *size), Notes())

    def work(rank: int) -> None:
        fit(distill_job(tmp_path / "many", *size, *changes, f"run.parallel={parallel}"), Notes())

    for ended in run_ranks(2, work, tmp_path / "said"):
        assert ended.code == 0, ended.text
    one, many = records(tmp_path / "one"), records(tmp_path / "many")
    assert len(one) == len(many) == 6
    for left, right in zip(one, many, strict=True):
        assert left.keys() == right.keys()
        for key in ("loss", "grad_norm", "accuracy", "teacher_accuracy", "agreement"):
            assert right[key] == pytest.approx(left[key], rel=1e-6, abs=2e-6), (left["step"], key)


def test_every_rank_has_the_teacher_and_refuses_another(
    videos: Path, teacher: Path, stranger: Path, tmp_path: Path
) -> None:
    recipe = short(videos, ema=0.5, mixing=Mixing(probability=0.0))
    finetune(taught_by(teacher, recipe), tmp_path / "one", Notes())

    def many(taught: Path, act: Callable[[StepReport], None]) -> list[Ended]:
        changed = taught_by(taught, recipe, "run.parallel=fsdp")

        def work(rank: int) -> None:
            finetune(changed, tmp_path / "many", Notes(act=act))

        return run_ranks(2, work, tmp_path / "said")

    stopped = many(teacher, killer(4, signal.SIGTERM))
    assert [one.code for one in stopped] == [128 + signal.SIGTERM] * 2, stopped
    refused = many(stranger, lambda _: None)
    assert [one.code for one in refused] == [2, 2], refused
    assert all("begun with another teacher" in one.text for one in refused)
    done = many(teacher, lambda _: None)
    assert [one.code for one in done] == [0, 0], done
    one, other = (losses(tmp_path / run) for run in ("one", "many"))
    assert [record["loss"] for record in other] == pytest.approx([record["loss"] for record in one], rel=1e-4)
    assert (tmp_path / "many/model/model.safetensors").stat().st_size > 0
