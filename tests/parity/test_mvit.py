"""Our MViTv2 is SlowFast's: golden cases 06, built from their metadata (docs of the cases: shared/golden)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from multiscale import (
    WAYS,
    build_classifier,
    gradients,
    names_of,
    pixels_of,
    slowfast_file,
    spec_of,
)
from torch import Tensor
from torch.nn import functional as F

from golden import Case, assert_grad_norms, assert_output, load_case
from tubelet.methods.classifier import Classifier
from tubelet.weights.read import read_model
from tubelet.weights.tensors.rename import to_official


@pytest.fixture(scope="module")
def case() -> Case:
    return load_case("case06_mvitv2_classify")


@pytest.fixture(scope="module", params=WAYS)
def classifier(case: Case, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return build_classifier(case, request.param, tmp_path_factory.mktemp("case06"))


def test_a_file_tells_the_whole_model(case: Case, tmp_path: Path) -> None:
    recipe = read_model(slowfast_file(case, tmp_path)).recipe
    assert recipe.model.encoder == spec_of(case)
    _, _, frames, size, _ = case.input["video"].shape
    assert (recipe.clip.frames, recipe.clip.size) == (frames, size)


def test_classifier_outputs_loss_and_gradients(case: Case, classifier: Classifier) -> None:
    found: list[Tensor] = []
    hooks = [
        block.register_forward_hook(lambda _module, _inputs, output: found.append(output))
        for block in classifier.encoder.stack()
    ]
    video = pixels_of(case, classifier.encoder)
    pooled = classifier.features(video)
    for hook in hooks:
        hook.remove()
    given = [name for name in case.output if name.startswith("block")]
    assert given
    for name in given:
        assert_output(case, name, found[int(name.removeprefix("block").removesuffix("_tokens"))])
    assert_output(case, "pooled", pooled)
    logits = classifier(video)
    assert_output(case, "logits", logits)
    assert_output(case, "probabilities", logits.softmax(1))
    loss = F.cross_entropy(logits, case.input["label"])
    assert_output(case, "loss", loss)
    classifier.zero_grad()
    loss.backward()
    assert_grad_norms(case, gradients(classifier, names_of(case)))


def test_every_weight_goes_out_under_their_name(case: Case, classifier: Classifier) -> None:
    back = to_official(classifier.state_dict(), names_of(case))
    assert back.keys() == case.weight.keys()
    assert all(torch.equal(back[name], case.weight[name]) for name in back)
