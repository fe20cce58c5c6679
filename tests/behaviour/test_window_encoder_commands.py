"""Video Swin and TimeSformer in every command: pre-training, going on, fine-tuning, embedding, several ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from toy_claims import assert_goes_on, assert_two_ranks_agree, say
from toy_labelled import labelled_folder
from toy_run import finetune_recipe, pretrain_recipe

import tubelet
from tubelet.methods.classifier import ClassifierSpec
from tubelet.methods.predictor import MaskedPredictorSpec
from tubelet.models.base import EncoderSpec
from tubelet.models.encoders import ENCODERS
from tubelet.recipe import FinetuneRecipe, PretrainRecipe, override, write_recipe
from tubelet.spec import replace
from tubelet.types import ClipShape

CLIP = ClipShape(frames=4, size=32)
POOLINGS = {"swin": "normed_mean", "timesformer": "class"}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_folder(tmp_path_factory.mktemp("videos"), each=4)


@pytest.fixture(scope="module", params=POOLINGS)
def encoder(request: pytest.FixtureRequest) -> EncoderSpec:
    return ENCODERS[request.param].tiny()


def recipe(videos: Path, encoder: EncoderSpec, *changes: str) -> PretrainRecipe:
    toy = replace(pretrain_recipe(), clip=CLIP, model=MaskedPredictorSpec(encoder=encoder))
    fixed = (f"data.videos={videos}", "data.sampler={kind: strided, stride: 1}", "schedule.warmup_epochs=0")
    return override(toy, [*fixed, "mask={kind: random, ratio: 0.5}", *changes])


def tuning(encoder: EncoderSpec) -> FinetuneRecipe:
    model = ClassifierSpec.model_validate({"encoder": encoder, "pooling": POOLINGS[encoder.kind]})
    fixed = ("data.sampler={kind: span, stride: 1}", "schedule.epochs=1", "schedule.warmup_epochs=0", "classes=2")
    return override(replace(finetune_recipe(), clip=CLIP, model=model), [*fixed, "optim.layer_decay=0.9"])


@pytest.fixture(scope="module")
def pretrained(videos: Path, encoder: EncoderSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained")
    write_recipe(recipe(videos, encoder), folder / "toy.yaml")
    say("pretrain", str(folder / "toy.yaml"), "--data", str(videos), "--out", str(folder / "run"))
    return folder / "run"


@pytest.fixture(scope="module")
def tuned(pretrained: Path, videos: Path, encoder: EncoderSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned")
    write_recipe(tuning(encoder), folder / "tune.yaml")
    training = ("--train", str(videos), "--val", str(videos), "--start", str(pretrained), "--out", str(folder / "run"))
    assert f"encoder from {pretrained}" in say("finetune", str(folder / "tune.yaml"), *training)
    return folder / "run"


def test_fine_tuning_starts_from_it_and_evaluates(tuned: Path, videos: Path) -> None:
    assert "top-1" in say("evaluate", str(tuned), str(videos))


def test_load_and_embed_give_its_tokens(
    pretrained: Path, tuned: Path, encoder: EncoderSpec, videos: Path, tmp_path: Path
) -> None:
    for run in (pretrained, tuned):
        store = tmp_path / f"{run.parent.name}.parquet"
        say("embed", str(videos), "--from", str(run), "--out", str(store), "--device", "cpu")
        assert store.is_file()
    model, tokens = tubelet.load(pretrained, device="cpu"), CLIP.grid(encoder.cube).tokens
    assert model.encode(torch.zeros(1, 3, 4, 32, 32, dtype=torch.uint8)).tokens.shape == (1, tokens, encoder.out_width)
    larger = tubelet.load(pretrained, device="cpu", frames=8, size=64)
    assert larger.encode(torch.zeros(1, 3, 8, 64, 64, dtype=torch.uint8)).tokens.shape[1] == 8 * tokens


def test_reconstruct_and_inspect_know_it(pretrained: Path, encoder: EncoderSpec, videos: Path, tmp_path: Path) -> None:
    say("reconstruct", str(videos / "dark/0.mp4"), "--from", str(pretrained), "-o", str(tmp_path / "strip.png"))
    assert (tmp_path / "strip.png").is_file()
    assert encoder.kind in say("weights", "inspect", str(pretrained), "--json")


@pytest.mark.parametrize("checkpointing", ["false", "true"])
def test_stopping_and_going_on_changes_nothing(
    checkpointing: str, encoder: EncoderSpec, videos: Path, tmp_path: Path
) -> None:
    changes = ("schedule.epochs=2", f"model.encoder.checkpointing={checkpointing}", "model.encoder.drop_path=0.2")
    assert_goes_on(recipe(videos, encoder, *changes), tmp_path, step=2)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_ranks_give_the_losses_of_one_process(
    parallel: str, encoder: EncoderSpec, videos: Path, tmp_path: Path
) -> None:
    changes = ("schedule.epochs=2", f"run.parallel={parallel}")
    assert len(assert_two_ranks_agree(recipe(videos, encoder, *changes), tmp_path)) == 4
