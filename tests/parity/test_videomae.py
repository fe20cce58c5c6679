"""Our VideoMAE is the authors': golden cases 01 (pre-training step) and 02 (classifier), built from their metadata.

Each by the converter, and through a file as the authors write it.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from authors import WAYS, build_autoencoder, build_classifier, gradients, pixels_of
from torch import Tensor
from torch.nn import functional as F

from golden import Case, assert_grad_norms, assert_output, load_case
from tubelet.masks import Tube
from tubelet.methods.autoencoder import MaskedAutoencoder
from tubelet.methods.classifier import Classifier
from tubelet.targets.pixels import Pixels
from tubelet.types import Grid, Mask, Split
from tubelet.weights.tensors.rename import to_official
from tubelet.weights.videomae.names import FINETUNED, PRETRAINED

# Case 01: one pre-training step


@pytest.fixture(scope="module")
def pretraining() -> Case:
    return load_case("case01_videomae_pretrain")


@pytest.fixture(scope="module", params=WAYS)
def autoencoder(
    pretraining: Case, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> MaskedAutoencoder:
    return build_autoencoder(pretraining, request.param, tmp_path_factory.mktemp("case01"))


@pytest.fixture(scope="module")
def split(pretraining: Case) -> Split:
    grid = Grid(*pretraining.meta["config"]["token_grid_thw"])
    hidden = pretraining.input["mask"].bool().unflatten(1, tuple(grid))
    return Mask(hidden, hidden).split()


def test_pretraining_grid_and_target_width_follow_from_the_spec(
    pretraining: Case, autoencoder: MaskedAutoencoder
) -> None:
    config = pretraining.meta["config"]
    assert autoencoder.encoder.grid == tuple(config["token_grid_thw"])
    assert autoencoder.decoder.head.out_features == config["model"]["decoder_num_classes"]


def test_pretraining_position_tables(pretraining: Case, autoencoder: MaskedAutoencoder) -> None:
    assert_output(pretraining, "pos_embed_encoder", autoencoder.encoder.get_buffer("pos_embed"))
    assert_output(pretraining, "pos_embed_decoder", autoencoder.decoder.pos_embed)


def test_pretraining_encoder_tokens(pretraining: Case, autoencoder: MaskedAutoencoder, split: Split) -> None:
    assert_output(pretraining, "encoder_tokens", autoencoder.encoder(pixels_of(pretraining), split.seen))


def test_pretraining_targets(pretraining: Case, autoencoder: MaskedAutoencoder, split: Split) -> None:
    rows = autoencoder.target.rows(pixels_of(pretraining), split.wanted, autoencoder.encoder.spec.cube)
    assert_output(pretraining, "targets", rows)


def test_pretraining_predictions_loss_and_gradients(
    pretraining: Case, autoencoder: MaskedAutoencoder, split: Split
) -> None:
    video = pixels_of(pretraining)
    prediction = autoencoder.predict(video, split)
    assert_output(pretraining, "predictions", prediction)
    target = autoencoder.target.rows(video, split.wanted, autoencoder.encoder.spec.cube)
    loss = autoencoder.target.loss(prediction, target, split.weight)
    assert_output(pretraining, "loss", loss)
    autoencoder.zero_grad()
    loss.backward()
    assert_grad_norms(pretraining, gradients(autoencoder, PRETRAINED))


def test_pretraining_loss_on_plain_pixels(pretraining: Case, autoencoder: MaskedAutoencoder, split: Split) -> None:
    video, target = pixels_of(pretraining), Pixels()
    rows = target.rows(video, split.wanted, autoencoder.encoder.spec.cube)
    loss = target.loss(autoencoder.predict(video, split), rows, split.weight)
    assert_output(pretraining, "loss_unnormalised", loss)


def test_tube_hides_as_many_tokens_as_theirs(pretraining: Case) -> None:
    config, theirs = pretraining.meta["config"], pretraining.input["mask"].bool()
    grid = Grid(*config["token_grid_thw"])
    hidden = Tube(ratio=config["mask_ratio"])(grid, np.random.default_rng(0))
    assert set(theirs.sum(1).tolist()) == {int(hidden.sum())}
    theirs_by_step = theirs.unflatten(1, tuple(grid))
    assert (theirs_by_step == theirs_by_step[:, :1]).all()
    assert (hidden == hidden[:1]).all()


# Case 02: the classifier


@pytest.fixture(scope="module")
def finetuning() -> Case:
    return load_case("case02_videomae_finetune")


@pytest.fixture(scope="module", params=WAYS)
def classifier(
    finetuning: Case, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Classifier:
    return build_classifier(finetuning, request.param, tmp_path_factory.mktemp("case02"))


def test_classifier_position_table(finetuning: Case, classifier: Classifier) -> None:
    if "pos_embed" in finetuning.output:  # a learnable table is among the weights instead
        assert_output(finetuning, "pos_embed", classifier.encoder.get_buffer("pos_embed"))


def test_classifier_outputs_loss_and_gradients(finetuning: Case, classifier: Classifier) -> None:
    last = classifier.encoder.stack()[-1]
    block_tokens: list[Tensor] = []
    hook = last.register_forward_hook(lambda _module, _inputs, output: block_tokens.append(output))
    video = pixels_of(finetuning)
    pooled = classifier.features(video)
    hook.remove()
    assert_output(finetuning, "block_tokens", block_tokens[0])
    assert_output(finetuning, "pooled", pooled)
    logits = classifier(video)
    assert_output(finetuning, "logits", logits)
    loss = F.cross_entropy(logits, finetuning.input["label"])
    assert_output(finetuning, "loss", loss)
    classifier.zero_grad()
    loss.backward()
    assert_grad_norms(finetuning, gradients(classifier, FINETUNED))


def test_every_weight_goes_out_under_their_name(
    finetuning: Case, classifier: Classifier, pretraining: Case, autoencoder: MaskedAutoencoder
) -> None:
    for case, module, pairs in [(finetuning, classifier, FINETUNED), (pretraining, autoencoder, PRETRAINED)]:
        back = to_official(module.state_dict(), pairs)
        assert back.keys() == case.weight.keys()
        assert all(torch.equal(back[name], case.weight[name]) for name in back)
