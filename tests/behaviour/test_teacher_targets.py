"""Targets that a frozen network gives, from the command line: pretrain, resume, use without the network, refusals."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_claims import assert_goes_on, assert_two_ranks_agree, say
from toy_dvae import write_dvae
from toy_labelled import labelled_folder
from toy_run import CLIP, VIT, Notes, finetune_recipe, killer, pretrain_recipe, records
from toy_targets import SHAPES, by, toy, write_image_model

import tubelet
from tubelet.models.tokenizers.dvae import DvaeSpec
from tubelet.recipe import PretrainRecipe, override, write_recipe
from tubelet.recipes import RECIPES
from tubelet.rng import step_rng
from tubelet.runs.finetune import finetune
from tubelet.runs.pretrain import pretrain
from tubelet.spec import replace
from tubelet.targets.frozen import FrozenTarget
from tubelet.train.building import build_method
from tubelet.train.checkpoint.folder import write_model
from tubelet.train.distributed.signals import Interrupted

WIDTHS = {"video": 24, "image": 20, "classes": 3, "ids": 9}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_folder(tmp_path_factory.mktemp("videos"), each=3)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of each: a run, an image model, a classifier, a tokenizer."""
    folder = tmp_path_factory.mktemp("teachers")
    plain, tuned = pretrain_recipe("seed=3"), finetune_recipe()
    write_model(folder / "video", plain, build_method(plain).state_dict())
    with step_rng(5, 0):
        write_model(folder / "classes", tuned, tuned.model.build(CLIP, 3).state_dict())
        write_image_model(folder / "image")
    write_dvae(DvaeSpec(width=8, blocks=1, vocabulary=9), folder / "ids")
    return folder


@pytest.fixture(scope="module")
def trained(videos: Path, teachers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on features whose teacher is gone."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(teachers / "video", folder / "video")
    write_recipe(toy(videos), folder / "toy.yaml")
    said = say("pretrain", str(folder / "toy.yaml"), "--out", str(folder / "run"), *by(folder / "video"))
    assert "targets from" in said
    shutil.rmtree(folder / "video")
    return folder / "run"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("teacher", WIDTHS)
def test_every_method_learns_from_each_by_two_overrides(
    teacher: str, shape: str, videos: Path, teachers: Path, tmp_path: Path
) -> None:
    write_recipe(toy(videos, shape=shape), tmp_path / "toy.yaml")
    say("pretrain", str(tmp_path / "toy.yaml"), "--out", str(tmp_path / "run"), *by(teachers / teacher))
    state = load_file(tmp_path / "run/model/model.safetensors")
    head = "prediction_head" if shape == "masked_predictor" else "decoder.head"
    assert len(state[f"{head}.bias"]) == WIDTHS[teacher]
    plain = build_method(toy(videos, shape=shape)).state_dict()
    assert state.keys() == plain.keys()
    losses = [record["loss"] for record in records(tmp_path / "run")]
    assert len(losses) == 4
    assert json.loads((tmp_path / "run/teacher.json").read_text())["sha256"]


@pytest.mark.parametrize("teacher", WIDTHS)
def test_a_multiscale_transformer_learns_from_each(teacher: str, videos: Path, teachers: Path, tmp_path: Path) -> None:
    """Two tokens a side for the last grid, as the teachers have; MaskFeat's recipe, so its own counts of FLOPs."""
    plain = RECIPES["maskfeat-ti-cpu-pretrain"]()
    assert isinstance(plain, PretrainRecipe)
    small = override(plain, [f"data.videos={videos}", *by(teachers / teacher)])
    size = CLIP.size // VIT.patch * small.model.encoder.cube.height
    fields = (f"clip.frames={CLIP.frames}", f"clip.size={size}", "data.sampler={kind: strided, stride: 1}")
    short = ("run.batch_size=3", "schedule.epochs=1", "schedule.warmup_epochs=0", "mask=random", "data.workers=0")
    pretrain(override(small, [*fields, *short, "run.device=cpu", "run.precision=fp32"]), tmp_path, Notes())
    state = load_file(tmp_path / "model/model.safetensors")
    assert len(state["prediction_head.bias"]) == WIDTHS[teacher]


def test_the_same_seed_gives_the_same_first_weights_whatever_is_asked(videos: Path, teachers: Path) -> None:
    """Reading a teacher takes no draw of the run's."""
    hog, asked = (build_method(toy(videos, *one)).state_dict() for one in ((), by(teachers / "image")))
    assert hog.keys() == asked.keys()
    assert all(asked[name].equal(hog[name]) for name in hog if name.startswith("encoder."))


@pytest.mark.parametrize("teacher", ["video", "image"])
def test_stopping_and_going_on_changes_nothing(teacher: str, videos: Path, teachers: Path, tmp_path: Path) -> None:
    """Also where the teacher has moved meanwhile."""
    recipe = toy(videos, *by(teachers / teacher), "run.save_every=1")
    moved = Path(shutil.copytree(teachers / teacher, tmp_path / "moved" / teacher))
    assert_goes_on(recipe, tmp_path, step=2, then=toy(videos, *by(moved), "run.save_every=1"))


def test_another_teacher_is_refused_and_fresh_takes_it(videos: Path, teachers: Path, tmp_path: Path) -> None:
    other = pretrain_recipe("seed=4")
    write_model(tmp_path / "video", other, build_method(other).state_dict())
    with pytest.raises(Interrupted):
        pretrain(toy(videos, *by(teachers / "video")), tmp_path / "run", Notes(act=killer(2, signal.SIGTERM)))
    stranger = toy(videos, *by(tmp_path / "video"))
    with pytest.raises(ValueError, match=r"another teacher than .* give that one with target\.teacher"):
        pretrain(stranger, tmp_path / "run", Notes())
    pretrain(stranger, tmp_path / "run", Notes(), fresh=True)


@pytest.mark.parametrize("part", ["", "model", "model/model.safetensors"])
def test_a_teacher_or_a_start_is_not_replaced_by_what_it_is_for(
    part: str, videos: Path, teachers: Path, tmp_path: Path
) -> None:
    shutil.copytree(teachers / "video", tmp_path / "video")
    needed, out = tmp_path / "video" / part, tmp_path / "video"
    with pytest.raises(ValueError, match=r"target\.teacher lies in .*, where this run would replace it"):
        pretrain(toy(videos, "target=features", f"target.teacher={needed}"), out, Notes(), fresh=True)
    with pytest.raises(ValueError, match=r"start lies in .*, where this run would replace it"):
        pretrain(toy(videos, f"start={needed}"), out, Notes())
    tuned = override(finetune_recipe(), [f"data.train={videos}", f"start={needed}", "classes=2"])
    with pytest.raises(ValueError, match=r"start lies in .*, where this run would replace it"):
        finetune(tuned, out, Notes(), fresh=True)
    assert (out / "model/model.safetensors").read_bytes() == (teachers / "video/model/model.safetensors").read_bytes()


def test_colours_of_an_image_teacher_make_it_another(videos: Path, teachers: Path, tmp_path: Path) -> None:
    recipe = toy(videos, *by(teachers / "image"))
    with pytest.raises(Interrupted):
        pretrain(recipe, tmp_path / "run", Notes(act=killer(2, signal.SIGTERM)))
    folder = Path(shutil.copytree(teachers / "image", tmp_path / "image"))
    colours = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    (folder / "preprocessor_config.json").write_text(json.dumps(colours))
    with pytest.raises(ValueError, match="another teacher than"):
        pretrain(toy(videos, *by(folder)), tmp_path / "run", Notes())


def test_the_model_works_where_its_teacher_is_gone(trained: Path, videos: Path, tmp_path: Path) -> None:
    store = tmp_path / "store.parquet"
    say("embed", str(videos), "--from", str(trained), "--out", str(store), "--device", "cpu")
    assert store.is_file()
    assert "decoder" in say("weights", "inspect", str(trained))
    tuned = replace(finetune_recipe(), classes=2)
    tuned = override(tuned, [f"data.train={videos}", "schedule.epochs=1", "schedule.warmup_epochs=0", "ema=null"])
    write_recipe(tuned, tmp_path / "tuned.yaml")
    say("finetune", str(tmp_path / "tuned.yaml"), "--start", str(trained), "--out", str(tmp_path / "fine"))
    model = tubelet.load(trained, device="cpu")
    clip = torch.zeros(1, 3, CLIP.frames, CLIP.size, CLIP.size, dtype=torch.uint8)
    assert model.encode(clip).tokens.shape == (1, 8, 24)
    with pytest.raises(ValueError, match="reconstruct draws pixels and hog, not the target features"):
        model.reconstruct(clip)


def test_reconstruct_refuses_in_one_line_and_going_on_needs_the_teacher(
    trained: Path, videos: Path, tmp_path: Path
) -> None:
    video, out = videos / "dark/0.mp4", tmp_path / "strip.png"
    said = say("reconstruct", str(video), "--from", str(trained), "-o", str(out), code=2)
    assert said.strip().splitlines() == [
        f"tubelet: {trained}: reconstruct draws pixels and hog, not the target features; "
        "give a run that was trained with target=normalised_pixels or target=hog"
    ]
    said = say("pretrain", str(trained / "recipe.yaml"), "--out", str(trained), code=2)
    assert "no such teacher" in said


def test_a_plan_counts_the_head_without_the_network(videos: Path, teachers: Path, tmp_path: Path) -> None:
    write_recipe(toy(videos, *by(teachers / "image")), tmp_path / "toy.yaml")
    (tmp_path / "image").mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copy(teachers / "image" / name, tmp_path / "image" / name)  # no weights
    here = f"target.teacher={tmp_path / 'image'}"
    text = say("plan", str(tmp_path / "toy.yaml"), here, "--steps", "0", "--device", "H100", "--videos", "100")
    assert "gives the targets" in text


@pytest.mark.slow
def test_the_real_steps_of_a_plan_ask_the_network(videos: Path, teachers: Path, tmp_path: Path) -> None:
    write_recipe(toy(videos, *by(teachers / "image")), tmp_path / "toy.yaml")
    text = say("plan", str(tmp_path / "toy.yaml"), "--steps", "1", "--videos", "100")
    assert "real steps" in text
    assert re.search(r"memory (of these steps is lost in|[\d.e-]+ GB, estimate)", text)  # a few hundred kilobytes


def test_two_ranks_give_the_losses_of_one_process(videos: Path, teachers: Path, tmp_path: Path) -> None:
    recipe = toy(videos, *by(teachers / "image"), "run.batch_size=4", "run.parallel=fsdp")
    assert_two_ranks_agree(recipe, tmp_path)


# What is refused, in one line, before anything is written


def cut(source: Path, folder: Path) -> Path:
    """A copy whose tensors end early."""
    copied = Path(shutil.copytree(source, folder / source.name))
    file = next(copied.rglob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:200])
    return copied


def without(source: Path, folder: Path, name: str) -> Path:
    copied = Path(shutil.copytree(source, folder / source.name))
    (copied / name).unlink()
    return copied


def changed_config(source: Path, folder: Path, **fields: object) -> Path:
    copied = Path(shutil.copytree(source, folder / source.name))
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, **fields}))
    return copied


def pickled_only(source: Path, folder: Path) -> Path:
    copied = without(source, folder, "model.safetensors")
    torch.save({"weight": torch.zeros(1)}, copied / "pytorch_model.bin")
    return copied


Wrong = Callable[[Path, Path], tuple[str, ...]]
BAD: dict[str, tuple[Wrong, str]] = {
    "none named": (lambda t, f: ("target=features",), "target features: no network to ask: give a run"),
    "none named, ids": (
        lambda t, f: ("target=tokens",),
        "give the encoder of DALL-E's discrete VAE with",
    ),
    "missing": (lambda t, f: by(f / "video"), "no such teacher"),
    "cut run": (lambda t, f: by(cut(t / "video", f)), "truncated, or not a safetensors"),
    "cut image model": (lambda t, f: by(cut(t / "image", f)), "damaged, or not a whole dinov2 model"),
    "image model as a pickle": (lambda t, f: by(pickled_only(t / "image", f)), "no .safetensors file in it"),
    "no colours": (lambda t, f: by(without(t / "image", f, "preprocessor_config.json")), "lacks preprocessor_config"),
    "a language model": (lambda t, f: by(changed_config(t / "image", f, model_type="bert")), "folder of 'bert', which"),
    "half a model": (lambda t, f: by(changed_config(t / "image", f, num_hidden_layers=2)), "lacks encoder.layer.1"),
    "a frame of a clip": (lambda t, f: (*by(t / "video"), "target.frames=all"), "frames=all is for image teachers"),
    "other frames": (lambda t, f: (*by(t / "video"), "clip.frames=8"), "sees clips of 4 frames, this recipe makes 8"),
    "other grid": (
        lambda t, f: (*by(t / "video"), "model.encoder.patch=4"),
        "are 2 x 2 x 2 (clips of 4 frames of 16 pixels, cubes of 2 x 8 x 8), this recipe's 2 x 4 x 4: "
        "set target.size=32",
    ),
    "other tubelet": (
        lambda t, f: (*by(t / "video"), "model.encoder.tubelet=1"),
        "this recipe's 4 x 2 x 2: choose cubes of 2 frames (model.encoder.tubelet of a ViT)",
    ),
    "other size of an image": (
        lambda t, f: (*by(t / "image"), "target.size=42"),
        "make 3 x 3 of a frame of 42, this recipe's grid is 2 x 2: set target.size=28",
    ),
    "odd size of an image": (lambda t, f: (*by(t / "image"), "target.size=30"), "of a frame of 30, this recipe's grid"),
    "odd size": (
        lambda t, f: (*by(t / "video"), "target.size=30"),
        "target.size 30 is not a multiple of the",
    ),
    "no classes": (lambda t, f: ("target=pseudo_labels", f"target.teacher={t}/video"), "so it gives no pseudo-labels"),
    "other frames of classes": (lambda t, f: (*by(t / "classes"), "clip.frames=8"), "set clip.frames=4"),
    "no tokenizer": (
        lambda t, f: ("target=tokens", f"target.teacher={t}/video/model/model.safetensors"),
        "no encoder of DALL-E's discrete VAE",
    ),
}


@pytest.mark.parametrize(("wrong", "said"), BAD.values(), ids=BAD)
def test_what_cannot_be_asked_is_refused_in_one_line(
    wrong: Wrong, said: str, videos: Path, teachers: Path, tmp_path: Path
) -> None:
    write_recipe(toy(videos), tmp_path / "toy.yaml")
    out = tmp_path / "run"
    text = say("pretrain", str(tmp_path / "toy.yaml"), "--out", str(out), *wrong(teachers, tmp_path), code=2)
    lines = text.strip().splitlines()
    assert [line for line in lines if "videos" not in line] == lines[-1:], text
    assert said in lines[-1]
    assert not out.exists()


def test_the_file_of_an_image_model_stands_for_its_folder(videos: Path, teachers: Path) -> None:
    target = build_method(toy(videos, *by(teachers / "image"))).target
    file = build_method(toy(videos, "target=features", f"target.teacher={teachers}/image/model.safetensors")).target
    video = torch.randint(0, 256, (1, 3, CLIP.frames, CLIP.size, CLIP.size), dtype=torch.uint8)
    wanted, cube = torch.arange(8).unsqueeze(0), VIT.cube
    assert torch.equal(file.rows(video, wanted, cube), target.rows(video, wanted, cube))


def test_a_teacher_of_another_size_fits_with_its_positions_interpolated(videos: Path, teachers: Path) -> None:
    method = build_method(toy(videos, *by(teachers / "video"), "model.encoder.patch=4", "target.size=32"))
    assert isinstance(method.target, FrozenTarget)
    video = torch.zeros(1, 3, CLIP.frames, CLIP.size, CLIP.size, dtype=torch.uint8)
    assert method.target.rows(video, torch.arange(32).unsqueeze(0), method.cube).shape == (1, 32, 24)
