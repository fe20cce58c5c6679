"""A masked predictor from the command line: pretrain, resume, fine-tune, embed, reconstruct, plan; what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_claims import assert_goes_on, assert_two_ranks_agree, say
from toy_labelled import labelled_folder
from toy_run import CLIP, VIT, Notes, finetune_recipe, log_lines, pretrain_recipe

import tubelet
from tubelet.methods.classifier import ClassifierSpec
from tubelet.methods.predictor import MaskedPredictorSpec
from tubelet.models.mvit.model import MViTSpec, MViTStage
from tubelet.models.vit import ViTSpec
from tubelet.recipe import (
    EncoderRun,
    PretrainRecipe,
    ProgressiveRecipe,
    override,
    resolved,
    write_recipe,
)
from tubelet.recipe import Stage as RecipeStage
from tubelet.runs.pretrain import pretrain
from tubelet.spec import replace
from tubelet.types import ClipShape
from tubelet.weights.start import classifier_state

MVIT = MViTSpec(
    width=8,
    depth=3,
    stages=(MViTStage(start=1), MViTStage(start=2)),
    widen_in="mlp",
    last_stage_stride=1,
    drop_path=0.2,
)
ENCODERS = pytest.mark.parametrize("encoder", [VIT, MVIT], ids=["vit", "mvit"])
"""Tokens of both stand for 2 x 8 x 8."""


def recipe(videos: Path, *changes: str, encoder: ViTSpec | MViTSpec = VIT) -> PretrainRecipe:
    """Clips of 4 frames of 32 x 32, a grid of 2 x 4 x 4."""
    clip, model = ClipShape(frames=CLIP.frames, size=32), MaskedPredictorSpec(encoder=encoder)
    toy = replace(pretrain_recipe(), clip=clip, model=model)
    fixed = ("mask=cube", f"data.videos={videos}", "data.sampler={kind: strided, stride: 1}")
    return override(toy, [*fixed, *changes])


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_folder(tmp_path_factory.mktemp("videos"), each=4)


@pytest.fixture(scope="module", params=[VIT, MVIT], ids=["vit", "mvit"])
def encoder(request: pytest.FixtureRequest) -> ViTSpec | MViTSpec:
    found: ViTSpec | MViTSpec = request.param
    return found


@pytest.fixture(scope="module")
def trained(videos: Path, encoder: ViTSpec | MViTSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 6 steps through the command line."""
    folder = tmp_path_factory.mktemp("trained")
    write_recipe(recipe(videos, "target=hog", encoder=encoder), folder / "toy.yaml")
    say("pretrain", str(folder / "toy.yaml"), "--data", str(videos), "--out", str(folder / "run"))
    return folder / "run"


def test_a_run_is_written_whole(trained: Path) -> None:
    names = set(load_file(trained / "model/model.safetensors"))
    assert {"encoder.mask_token", "prediction_head.weight"} <= names
    assert not [name for name in names if name.startswith("decoder.")]
    assert len(log_lines(trained)) == 6


@pytest.mark.parametrize("rule", ["cube", "block_tube", "tube", "random", "{kind: frame, ratio: 0.5, count: nearest}"])
def test_stopping_and_going_on_changes_nothing(rule: str, videos: Path, tmp_path: Path) -> None:
    encoder = MVIT if rule == "cube" else VIT
    changes = (f"mask={rule}", "mask.ratio=0.5", "schedule.epochs=2", "run.accumulate=2")
    assert_goes_on(recipe(videos, *changes, encoder=encoder), tmp_path, step=2)


def test_fine_tuning_takes_its_encoder_and_lists_what_it_leaves(
    trained: Path, encoder: ViTSpec | MViTSpec, videos: Path, tmp_path: Path
) -> None:
    """A multiscale one gets coarser in its last stage, as MaskFeat is fine-tuned: tables are interpolated."""
    if isinstance(encoder, MViTSpec):
        encoder = replace(encoder, last_stage_stride=None)
    spec, clip = ClassifierSpec(encoder=encoder), ClipShape(frames=4, size=32)
    tuning = finetune_recipe("data.sampler={kind: span, stride: 1}", "schedule.epochs=1", "optim.lr=1e-12", "classes=2")
    write_recipe(replace(tuning, clip=clip, model=spec), tmp_path / "tune.yaml")
    training = ("--train", str(videos), "--val", str(videos), "--start", str(trained), "--out", str(tmp_path / "fine"))
    said = say("finetune", str(tmp_path / "tune.yaml"), *training)
    assert "5 of the file not used" in said
    assert ("position tables are interpolated" in said) == isinstance(encoder, MViTSpec)
    with torch.device("meta"):
        classifier = spec.build(clip, 2)
    _, started = classifier_state(classifier, trained)
    heads = {"prediction_head.weight", "prediction_head.bias"}
    assert set(started.dropped) == {"encoder.mask_token", "encoder.norm.weight", "encoder.norm.bias", *heads}
    before, after = (load_file(run / "model/model.safetensors") for run in (trained, tmp_path / "fine"))
    assert "encoder.mask_token" not in after
    weight = "encoder.patch_embed.weight"
    assert torch.allclose(after[weight], before[weight], rtol=0, atol=1e-6)


def test_embed_reconstruct_inspect_and_plan_know_it(
    trained: Path, encoder: ViTSpec | MViTSpec, videos: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store.parquet"
    say("embed", str(videos), "--from", str(trained), "--out", str(store), "--device", "cpu")
    assert store.is_file()
    say("reconstruct", str(videos / "dark/0.mp4"), "--from", str(trained), "-o", str(tmp_path / "strip.png"))
    assert (tmp_path / "strip.png").is_file()
    assert "decoder" in say("weights", "inspect", str(trained))
    text = say("plan", str(trained / "recipe.yaml"), "--steps", "0", "--device", "H100")
    assert "mask tokens" in text
    assert "head" in text


def test_another_run_may_start_from_it(
    trained: Path, encoder: ViTSpec | MViTSpec, videos: Path, tmp_path: Path
) -> None:
    notes = Notes()
    changes = (f"start={trained}", "target=hog", "schedule.epochs=1", "schedule.warmup_epochs=0")
    pretrain(recipe(videos, *changes, encoder=encoder), tmp_path, notes)
    assert any(str(trained) in line for line in notes.lines)


def test_what_needs_a_decoder_is_refused_in_one_line(trained: Path, videos: Path, tmp_path: Path) -> None:
    said = say("weights", "export", str(trained), "--out", str(tmp_path / "hf"), "--to", "huggingface", code=2)
    assert "masked predictor" in said
    write_recipe(pretrain_recipe(f"start={trained}", f"data.videos={videos}"), tmp_path / "auto.yaml")
    said = say("pretrain", str(tmp_path / "auto.yaml"), "--out", str(tmp_path / "run"), code=2)
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "run/model").exists()


def test_stages_of_both_shapes_do_not_follow_each_other(videos: Path) -> None:
    first, tuned = recipe(videos), finetune_recipe()
    second = replace(pretrain_recipe(), clip=first.clip)

    def stages(*recipes: EncoderRun) -> ProgressiveRecipe:
        named = [RecipeStage(name=f"stage{place}", recipe=one, evaluate=False) for place, one in enumerate(recipes)]
        return resolved(ProgressiveRecipe(name="two", stages=tuple(named)), lambda name: first)

    assert len(stages(first, replace(tuned, clip=first.clip)).stages) == 2
    with pytest.raises(ValueError, match="is a masked_autoencoder and cannot start from 'stage0', a masked_pred"):
        stages(first, second)


def test_a_mask_that_cannot_be_is_refused_before_fresh_removes_anything(videos: Path, tmp_path: Path) -> None:
    pretrain(recipe(videos, "schedule.epochs=1", "schedule.warmup_epochs=0"), tmp_path, Notes())
    with pytest.raises(ValueError, match="have no whole cells"):
        pretrain(recipe(videos, "mask.cell=[1,3,3]"), tmp_path, Notes(), fresh=True)
    assert (tmp_path / "model/model.safetensors").is_file()


@ENCODERS
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_ranks_give_the_losses_of_one_process(
    parallel: str, encoder: ViTSpec | MViTSpec, videos: Path, tmp_path: Path
) -> None:
    """Each rank pads to the most of its own clips, and weighs them by all that are hidden."""
    encoder = replace(encoder, drop_path=0.0)
    toy = recipe(videos, "mask.ratio=0.6", "schedule.epochs=2", f"run.parallel={parallel}", encoder=encoder)
    assert len(assert_two_ranks_agree(toy, tmp_path)) == 4


def test_load_gives_its_tokens(trained: Path) -> None:
    model = tubelet.load(trained, device="cpu")
    clip = torch.zeros(1, 3, 4, 32, 32, dtype=torch.uint8)
    assert model.encode(clip).tokens.shape == (1, 32, model.encoder.out_width)
    assert model.reconstruct(clip).original.shape == (4, 64, 64, 3), "lines of HOG are drawn at twice the size"
