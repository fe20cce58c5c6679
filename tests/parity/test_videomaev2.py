"""Our VideoMAE V2 is the authors': golden cases 03 (dual masking) and 04 (classifier), built from their metadata.

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
from tubelet.masks import RunningCell
from tubelet.methods.autoencoder import MaskedAutoencoder
from tubelet.methods.classifier import Classifier
from tubelet.nn.block import Block
from tubelet.types import Grid, Mask, Split
from tubelet.weights.tensors.rename import to_official
from tubelet.weights.videomae.names import FINETUNED, PRETRAINED

# Case 03: one pre-training step


@pytest.fixture(scope="module")
def pretraining() -> Case:
    return load_case("case03_videomaev2_pretrain")


@pytest.fixture(scope="module", params=WAYS)
def autoencoder(
    pretraining: Case, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> MaskedAutoencoder:
    return build_autoencoder(pretraining, request.param, tmp_path_factory.mktemp("case03"))


@pytest.fixture(scope="module")
def hidden(pretraining: Case) -> Tensor:
    grid = Grid(*pretraining.meta["config"]["token_grid_thw"])
    flat = pretraining.input["encoder_mask"].bool()
    return flat.reshape(len(flat), *grid)


@pytest.fixture(scope="module")
def split(pretraining: Case, hidden: Tensor) -> Split:
    """1 in the authors' decoder mask means not decoded."""
    decoded = (pretraining.input["decoder_mask"] == 0).unflatten(1, tuple(hidden.shape[1:]))
    return Mask(hidden, decoded).split()


def test_the_model_has_the_cases_sizes(pretraining: Case, autoencoder: MaskedAutoencoder) -> None:
    config = pretraining.meta["config"]
    blocks = [*autoencoder.encoder.stack(), *autoencoder.decoder.stack()]
    assert autoencoder.encoder.grid == tuple(config["token_grid_thw"])
    assert autoencoder.decoder.head.out_features == config["model"]["decoder_num_classes"]
    assert {block.attention.scale is not None for block in blocks if isinstance(block, Block)} == {
        config["model"]["cos_attn"]
    }


def test_decoder_table_and_encoder_tokens(pretraining: Case, autoencoder: MaskedAutoencoder, split: Split) -> None:
    assert_output(pretraining, "pos_embed_decoder", autoencoder.decoder.pos_embed)
    assert_output(pretraining, "encoder_tokens", autoencoder.encoder(pixels_of(pretraining), split.seen))


def test_only_decoded_tokens_that_were_hidden_are_counted(pretraining: Case, split: Split) -> None:
    assert torch.equal(split.weight, pretraining.output["counted"].float())


def test_targets(pretraining: Case, autoencoder: MaskedAutoencoder, split: Split) -> None:
    rows = autoencoder.target.rows(pixels_of(pretraining), split.wanted, autoencoder.encoder.spec.cube)
    assert_output(pretraining, "targets", rows)


def test_predictions_loss_and_gradients(pretraining: Case, autoencoder: MaskedAutoencoder, split: Split) -> None:
    prediction = autoencoder.predict(pixels_of(pretraining), split)
    assert_output(pretraining, "predictions", prediction)
    loss = loss_of(pretraining, autoencoder, split)
    assert_output(pretraining, "loss", loss)
    autoencoder.zero_grad()
    loss.backward()
    assert_grad_norms(pretraining, gradients(autoencoder, PRETRAINED))


def test_loss_without_a_decoder_mask(pretraining: Case, autoencoder: MaskedAutoencoder, hidden: Tensor) -> None:
    loss = loss_of(pretraining, autoencoder, Mask(hidden, hidden).split())
    assert_output(pretraining, "loss_no_decoder_mask", loss)


def test_every_weight_goes_out_under_their_name(pretraining: Case, autoencoder: MaskedAutoencoder) -> None:
    back = to_official(autoencoder.state_dict(), PRETRAINED)
    assert back.keys() == pretraining.weight.keys()
    assert all(torch.equal(back[name], pretraining.weight[name]) for name in back)


def loss_of(case: Case, method: MaskedAutoencoder, split: Split) -> Tensor:
    video = pixels_of(case)
    target = method.target.rows(video, split.wanted, method.encoder.spec.cube)
    return method.target.loss(method.predict(video, split), target, split.weight)


# Case 04: the classifier


@pytest.fixture(scope="module")
def finetuning() -> Case:
    return load_case("case04_videomaev2_finetune")


@pytest.fixture(scope="module", params=WAYS)
def classifier(
    finetuning: Case, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Classifier:
    return build_classifier(finetuning, request.param, tmp_path_factory.mktemp("case04"))


def test_the_hidden_width_is_exact(finetuning: Case, classifier: Classifier) -> None:
    model = finetuning.meta["config"]["model"]
    hidden = int(model["embed_dim"] * model["mlp_ratio"])
    widths = {len(bias) for name, bias in classifier.named_parameters() if name.endswith("mlp.fc1.bias")}
    assert widths == {hidden}


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


def test_every_weight_of_the_classifier_goes_out_under_their_name(finetuning: Case, classifier: Classifier) -> None:
    back = to_official(classifier.state_dict(), FINETUNED)
    assert back.keys() == finetuning.weight.keys()
    assert all(torch.equal(back[name], finetuning.weight[name]) for name in back)


# Case 03, the masks


def test_running_cell_maps_are_the_authors() -> None:
    """Every pattern of golden case 03, exactly; 1 there is not decoded, and odd grids have maps of another size."""
    case = load_case("case03_runningcell_masks")
    for one in case.meta["config"]["cases"]:
        grid, rule = Grid(*one["grid"]), RunningCell(ratio=one["ratio"])
        if grid.h % 2 or grid.w % 2:
            with pytest.raises(ValueError, match="no whole cells"):
                rule.pattern(grid, 0)
            continue
        ours = np.stack([~rule.pattern(grid, start).reshape(grid.t, -1) for start in range(4)])
        assert np.array_equal(ours, case.output[one["key"]].numpy().astype(bool)), one
