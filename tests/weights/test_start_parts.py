"""What starts what: pre-training from the encoder alone of any model; what is taken, left out and fresh is said."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest
import torch
from released import CLIP, DECODER, ENCODER, autoencoder, classifier, random, saved, theirs
from safetensors.torch import save_file
from torch import nn
from toy_claims import say
from toy_run import VIT, finetune_recipe, pretrain_recipe

from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.methods.masked import MaskedMethod
from tubelet.methods.predictor import MaskedPredictorSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.recipe import PretrainRecipe, ProgressiveRecipe, Stage, resolved
from tubelet.rng import step_rng
from tubelet.spec import replace
from tubelet.targets.hog import Hog
from tubelet.targets.pixels import NormalisedPixels
from tubelet.types import ClipShape
from tubelet.weights.start import start_masked


def built(spec: MaskedAutoencoderSpec | MaskedPredictorSpec, target: NormalisedPixels | Hog) -> MaskedMethod:
    with step_rng(5, 0):
        return random(spec.build(CLIP, target))


PREDICTOR = MaskedPredictorSpec(encoder=ENCODER)
HOG = Hog(cell=4)
METHODS: dict[str, tuple[MaskedAutoencoderSpec | MaskedPredictorSpec, NormalisedPixels | Hog]] = {
    "pixels": (MaskedAutoencoderSpec(encoder=ENCODER, decoder=DECODER), NormalisedPixels()),
    "HOG": (MaskedAutoencoderSpec(encoder=ENCODER, decoder=DECODER), HOG),
    "another decoder": (
        MaskedAutoencoderSpec(encoder=ENCODER, decoder=DecoderSpec(width=10, depth=2, heads=2)),
        NormalisedPixels(),
    ),
    "predictor": (PREDICTOR, NormalisedPixels()),
    "predictor of HOG": (PREDICTOR, HOG),
}


def file_of(method: nn.Module, folder: Path) -> Path:
    save_file(method.state_dict(), folder / "start.safetensors")
    return folder / "start.safetensors"


@pytest.mark.parametrize("after", METHODS)
@pytest.mark.parametrize("before", [*METHODS, "classifier", "released classifier", "released pre-training"])
def test_every_pretraining_starts_from_every_encoder(tmp_path: Path, before: str, after: str) -> None:
    if before in METHODS:
        source: nn.Module = built(*METHODS[before])
        path = file_of(source, tmp_path)
    else:
        source = autoencoder() if before == "released pre-training" else classifier()
        path = saved({"model": theirs(source)}, tmp_path) if "released" in before else file_of(source, tmp_path)
    method = built(*METHODS[after])
    others = {name: value.clone() for name, value in method.state_dict().items() if not name.startswith("encoder.")}
    started = start_masked(method, path, part="encoder")
    theirs_now, ours = source.state_dict(), method.state_dict()
    assert started.loaded
    for name in started.loaded:
        assert torch.equal(ours[name], theirs_now[name])
    assert {*started.loaded, *started.fresh} == ours.keys()
    assert all(torch.equal(ours[name], value) for name, value in others.items())
    blocks = {name for name in ours if name.startswith(("encoder.patch_embed", "encoder.blocks"))}
    assert blocks <= {*started.loaded}
    assert {*started.loaded, *started.dropped} == theirs_now.keys()


def test_lines_say_what_was_taken_left_out_and_begins_anew(tmp_path: Path) -> None:
    method = built(*METHODS["predictor of HOG"])
    started = start_masked(method, file_of(autoencoder(), tmp_path), part="encoder")
    assert started.lines[0] == (
        f"encoder from {tmp_path / 'start.safetensors'}: 30 tensors; 19 of the file not used (decoder (19)); "
        "fresh: encoder.mask_token, prediction_head.weight, prediction_head.bias"
    )


@pytest.mark.parametrize("after", ["HOG", "another decoder", "predictor"])
def test_the_whole_of_another_model_is_refused_with_a_way_out(tmp_path: Path, after: str) -> None:
    path = file_of(autoencoder(), tmp_path)
    with pytest.raises(ValueError, match=r"its encoder alone fits: start_part=encoder takes that") as error:
        start_masked(built(*METHODS[after]), path)
    assert "\n" not in str(error.value)
    deeper = MaskedPredictorSpec(encoder=replace(ENCODER, depth=3))
    for part in ("whole", "encoder"):
        with pytest.raises(ValueError, match=r"lacks encoder\.") as error:
            start_masked(built(deeper, HOG), path, part=part)
        assert "start_part" not in str(error.value)


def test_the_command_takes_the_part() -> None:
    assert "start-part" in say("pretrain", "videomae-s-small-pretrain", "--start-part", "head", code=2)


FIRST = pretrain_recipe()


@pytest.mark.parametrize(
    "second",
    [
        replace(FIRST, name="second", target=HOG),
        replace(FIRST, name="second", model=MaskedAutoencoderSpec(encoder=VIT, decoder=DecoderSpec(depth=2))),
        replace(FIRST, name="second", model=MaskedPredictorSpec(encoder=VIT)),
        replace(
            FIRST,
            name="second",
            clip=ClipShape(frames=4, size=16),
            model=MaskedPredictorSpec(encoder=replace(VIT, tubelet=4)),
        ),
    ],
    ids=["target", "decoder", "shape", "inflated"],
)
@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
def test_stages_start_from_the_encoder_alone(second: PretrainRecipe, kind: str) -> None:
    inflates = second.model.encoder.cube.frames == 4
    first = FIRST if kind == "pretrain" else finetune_recipe()
    if inflates:
        image = ClipShape(frames=1, size=16)
        encoder = replace(VIT, tubelet=1)
        first = replace(first, clip=image, model=replace(first.model, encoder=encoder))
    given = [Stage(name="one", recipe=first), Stage(name="two", recipe=second, start="one")]
    whole = ProgressiveRecipe(name="both", stages=tuple(given))
    if second.target != HOG or kind == "finetune":
        with pytest.raises(ValueError, match=r"stage 'two'"):
            resolved(whole, never)
    alone = replace(second, start_part="encoder")
    assert resolved(replace(whole, stages=(given[0], replace(given[1], recipe=alone))), never)


def never(name: str) -> NoReturn:
    raise AssertionError(name)
