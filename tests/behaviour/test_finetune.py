"""Fine-tuning on real files: it learns, starts from pre-trained weights, goes on bit for bit, refuses in one line."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_labelled import labelled_folder, toy_recipe, tubelet, write_video
from toy_run import Notes, killer

from tubelet.data.class_names import read_names
from tubelet.masks import Tube
from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.methods.classifier import ClassifierSpec, Finetuning
from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.nn.mixing import Mixing
from tubelet.recipe import Data, FinetuneRecipe, LabelledData, PretrainRecipe, Schedule, override, read_recipe, to_yaml
from tubelet.runs.finetune import finetune, finetuning_groups, first_classifier
from tubelet.runs.pretrain import pretrain
from tubelet.spec import replace
from tubelet.train.checkpoint.folder import saved
from tubelet.train.distributed.signals import Interrupted
from tubelet.train.records.log import read_log
from tubelet.weights.classifier import load_classifier

COUNTED = "are the labels counted from 1?"


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_folder(tmp_path_factory.mktemp("videos"), each=8)


def on(videos: Path, **changes: object) -> FinetuneRecipe:
    recipe = toy_recipe(**changes)
    return replace(recipe, data=replace(recipe.data, train=str(videos)))


def short(videos: Path, **changes: object) -> FinetuneRecipe:
    return on(videos, schedule=Schedule(epochs=3, warmup_epochs=1), **changes)


def write_list(folder: Path, lines: str) -> Path:
    path = folder / "list.csv"
    path.write_text(lines)
    return path


def test_it_learns_and_says_how_validation_went(videos: Path, tmp_path: Path) -> None:
    recipe = on(videos)
    notes = Notes()
    model = finetune(replace(recipe, data=replace(recipe.data, val=str(videos))), tmp_path / "run", notes)
    results = [r["evaluation"] for r in read_log(tmp_path / "run" / "log.jsonl") if "evaluation" in r]
    assert len(results) == 10
    assert results[-1]["accuracy"] >= 0.9
    assert [r["best_accuracy"] for r in results] == [
        max(r["accuracy"] for r in results[: n + 1]) for n in range(len(results))
    ]
    assert "20 steps in all, few for a new head: schedule.epochs=500 would make 1,000" in notes.lines
    assert any("the final weights are saved, not those of the best epoch" in line for line in notes.lines)
    assert sorted(path.name for path in model.iterdir()) == ["classes.txt", "model.safetensors", "recipe.yaml"]
    assert read_names(model / "classes.txt") == ("bright", "dark")
    stored = read_recipe(model / "recipe.yaml")
    assert isinstance(stored, FinetuneRecipe)
    assert stored.classes == 2


def test_the_final_weights_are_saved_or_their_average(videos: Path, tmp_path: Path) -> None:
    for ema, file in ((None, "model"), (0.5, "average")):
        out = tmp_path / file
        model = load_file(finetune(short(videos, ema=ema), out, Notes()) / "model.safetensors")
        last = load_file(saved(out)[-1] / f"{file}.safetensors")
        assert {f"classifier.{name}" for name in model} == set(last)
        assert all(value.equal(last[f"classifier.{name}"]) for name, value in model.items())


def test_validation_changes_nothing_that_is_learnt(videos: Path, tmp_path: Path) -> None:
    recipe = short(videos, ema=0.5)
    plain = load_file(finetune(recipe, tmp_path / "plain", Notes()) / "model.safetensors")
    watched = replace(recipe, data=replace(recipe.data, val=str(videos)))
    looked_at = load_file(finetune(watched, tmp_path / "watched", Notes()) / "model.safetensors")
    assert all(value.equal(looked_at[name]) for name, value in plain.items())


@pytest.mark.parametrize("step", [3, 4])
def test_a_stopped_run_goes_on_bit_for_bit_with_its_average(videos: Path, tmp_path: Path, step: int) -> None:
    recipe = short(videos, ema=0.5, mixing=Mixing())
    recipe = replace(recipe, data=replace(recipe.data, val=str(videos)))
    finetune(recipe, tmp_path / "whole", Notes())
    with pytest.raises(Interrupted):
        finetune(recipe, tmp_path / "parts", Notes(act=killer(step, signal.SIGTERM)))
    finetune(recipe, tmp_path / "parts", Notes())
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def assert_same_run(one: Path, other: Path) -> None:
    def numbers(out: Path) -> list[object]:
        return [
            [r.get("step"), r.get("loss"), r.get("evaluation")] for r in read_log(out / "log.jsonl") if "speed" not in r
        ]

    assert numbers(one) == numbers(other)
    files = [*saved(one)[-1].glob("*.safetensors"), one / "model/model.safetensors"]
    assert len(files) == 4
    for file in files:
        left, right = load_file(file), load_file(other / file.relative_to(one))
        assert left.keys() == right.keys()
        assert all(left[name].equal(right[name]) for name in left), file


def test_sigterm_from_outside_saves_and_the_command_goes_on(videos: Path, tmp_path: Path) -> None:
    recipe = override(on(videos, ema=0.9), ["schedule.epochs=40", "run.save_every=1000"])
    (tmp_path / "toy.yaml").write_text(to_yaml(recipe))
    whole = tubelet(tmp_path, "finetune", "toy.yaml", "--out", "whole")
    assert whole.returncode == 0, whole.stderr
    command = [sys.executable, "-m", "tubelet", "finetune", "toy.yaml", "--out", "parts"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any("step 1" in line for line in iter(process.stderr.readline, ""))
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + signal.SIGTERM, rest
    again = tubelet(tmp_path, "finetune", "toy.yaml", "--out", "parts")
    assert again.returncode == 0, again.stderr
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_pre_trained_encoder_is_taken_over_and_the_head_is_fresh(videos: Path, tmp_path: Path) -> None:
    recipe = short(videos)
    assert isinstance(recipe.model.encoder, ViTSpec)
    start = pretrain(pretraining(videos, recipe.model.encoder), tmp_path / "pre", Notes())
    notes = Notes()
    begun = replace(recipe, start=str(tmp_path / "pre"), classes=2)
    classifier = first_classifier(begun, notes)
    given = load_file(start / "model.safetensors")
    for name, value in classifier.encoder.state_dict().items():
        assert value.equal(given[f"encoder.{name}"]), name
    scratch = first_classifier(replace(begun, start=None), Notes())
    assert classifier.head.weight.equal(scratch.head.weight)
    assert any("fresh: fc_norm.weight, fc_norm.bias, head.weight, head.bias" in line for line in notes.lines)
    finetune(begun, tmp_path / "fine", Notes())
    shutil.rmtree(tmp_path / "pre")  # a run that goes on no longer needs it
    finetune(begun, tmp_path / "fine", Notes())


def pretraining(videos: Path, encoder: ViTSpec) -> PretrainRecipe:
    toy = toy_recipe()
    return PretrainRecipe(
        name="toy-pre",
        clip=toy.clip,
        data=Data(videos=str(videos), workers=0),
        model=MaskedAutoencoderSpec(encoder=encoder, decoder=DecoderSpec(width=16, depth=1, heads=2)),
        mask=Tube(ratio=0.5),
        schedule=Schedule(epochs=1, warmup_epochs=0),
        run=toy.run,
    )


def test_weights_of_another_shape_are_refused_and_fresh_then_keeps_the_old_work(videos: Path, tmp_path: Path) -> None:
    wide = ViTSpec(width=48, depth=2, heads=2, patch=8)
    pretrain(pretraining(videos, wide), tmp_path / "pre", Notes())
    recipe = short(videos)
    finetune(recipe, tmp_path / "run", Notes())
    with pytest.raises(ValueError, match="shapes do not fit: encoder") as error:
        finetune(replace(recipe, start=str(tmp_path / "pre")), tmp_path / "run", Notes(), fresh=True)
    assert "\n" not in str(error.value)
    assert load_classifier(tmp_path / "run").names == ("bright", "dark")


def test_repeated_views_share_a_batch(videos: Path, tmp_path: Path) -> None:
    notes = Notes()
    finetune(short(videos), tmp_path / "run", notes)
    assert notes.facts[0].total_steps == 6  # 16 videos, 8 a step, 3 epochs: views do not count as videos


def test_layer_decay_reaches_every_parameter() -> None:
    recipe = toy_recipe(classes=2)
    method = Finetuning(first_classifier(recipe, Notes()), recipe.mixing)
    groups = finetuning_groups(method, recipe)
    scale = {name: group.lr_scale for group in groups for name in group.names}
    assert scale.keys() == dict(method.named_parameters()).keys()
    assert scale["classifier.head.weight"] == 1.0
    assert scale["classifier.fc_norm.bias"] == 1.0
    assert scale["classifier.encoder.blocks.1.mlp.fc1.weight"] == pytest.approx(0.9)
    assert scale["classifier.encoder.patch_embed.weight"] == pytest.approx(0.9**3)


def test_a_run_with_other_classes_is_not_continued(videos: Path, tmp_path: Path) -> None:
    recipe = short(videos)
    finetune(recipe, tmp_path / "run", Notes())
    shutil.copytree(videos / "bright", tmp_path / "other/light")
    shutil.copytree(videos / "dark", tmp_path / "other/shade")
    shutil.rmtree(tmp_path / "run/model")
    moved = replace(recipe, data=replace(recipe.data, train=str(tmp_path / "other")))
    with pytest.raises(ValueError, match="begun with other classes"):
        finetune(moved, tmp_path / "run", Notes())


@pytest.mark.parametrize("classes", [None, 2])
def test_a_label_out_of_range_is_one_line_with_file_and_line(videos: Path, tmp_path: Path, classes: int | None) -> None:
    good = write_list(tmp_path, "bright/0.mp4 0\nbright/1.mp4 0\ndark/0.mp4 1\n")
    bad = tmp_path / "bad.csv"
    bad.write_text("bright/0.mp4 0\ndark/1.mp4 2\n")
    lists = {"train": bad, "val": good} if classes else {"train": good, "val": bad}
    recipe = toy_recipe(classes=classes, data=LabelledData(root=str(videos), workers=0))
    (tmp_path / "toy.yaml").write_text(to_yaml(recipe))
    options = [f"--{name}={path}" for name, path in lists.items()]
    done = tubelet(tmp_path, "finetune", "toy.yaml", *options, "--out", "run")
    assert done.returncode == 2
    assert done.stderr.strip() == f"tubelet: {bad}, line 2: label 2 of dark/1.mp4 is outside 0..1; {COUNTED}"


def test_no_list_to_train_on_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--train"):
        finetune(toy_recipe(), tmp_path, Notes())


def test_an_unreadable_training_video_stops_the_run_with_its_name(videos: Path, tmp_path: Path) -> None:
    shutil.copytree(videos, tmp_path / "videos")
    (tmp_path / "videos/dark/3.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match="1 of 16 videos cannot be read"):
        finetune(short(tmp_path / "videos"), tmp_path / "run", Notes())
    assert "dark/3.mp4" in (tmp_path / "run/skipped.csv").read_text()


def test_the_head_grows_with_the_classes_of_the_recipe(videos: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "v/a.mp4", 100, seed=1)
    write_video(tmp_path / "v/b.mp4", 100, seed=2)
    listed = write_list(tmp_path, "v/a.mp4 0\nv/b.mp4 3\n")
    recipe = override(short(listed), ["run.batch_size=2", "classes=6"])
    finetune(recipe, tmp_path / "run", Notes())
    saved_classifier = load_classifier(tmp_path / "run")
    assert saved_classifier.names == ("0", "1", "2", "3", "4", "5")
    assert saved_classifier.classifier(torch.zeros(1, 3, 4, 16, 16)).shape == (1, 6)
    assert isinstance(saved_classifier.recipe.model, ClassifierSpec)
