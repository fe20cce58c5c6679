"""Our TimeSformer is the authors': golden cases 09, built from their metadata (docs of the cases: shared/golden)."""

from __future__ import annotations

from typing import Final

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from golden import Case, assert_grad_norms, assert_output, load_case
from tubelet.methods.classifier import Classifier, ClassifierSpec
from tubelet.models.timesformer import AttentionKind, TimeSformer, TimeSformerSpec
from tubelet.types import ClipShape
from tubelet.weights.timesformer.names import AUTHORS, from_theirs, to_theirs

KINDS: Final[dict[str, AttentionKind]] = {
    "divided_space_time": "divided",
    "joint_space_time": "joint",
    "space_only": "space",
}


@pytest.fixture(scope="module", params=KINDS)
def case(request: pytest.FixtureRequest) -> Case:
    return load_case(f"case09_timesformer_{request.param}")


@pytest.fixture(scope="module")
def classifier(case: Case) -> Classifier:
    """In eval mode, with the authors' weights."""
    model = case.meta["config"]["model"]
    assert model["qkv_bias"] is True
    assert model["drop_path_rate"] == 0.0
    assert model["in_chans"] == 3
    eps = float(model["norm_layer"].partition("eps=")[2].rstrip(")"))
    encoder = TimeSformerSpec(
        width=model["embed_dim"],
        depth=model["depth"],
        heads=model["num_heads"],
        attention=KINDS[model["attention_type"]],
        mlp_ratio=model["mlp_ratio"],
        patch=model["patch_size"],
        norm_eps=eps,
    )
    clip = ClipShape(frames=model["num_frames"], size=model["img_size"])
    built = ClassifierSpec(encoder=encoder, pooling="class").build(clip, model["num_classes"])
    built.load_state_dict(from_theirs(case.weight, AUTHORS), strict=True)
    return built.eval()


def encoder_of(classifier: Classifier) -> TimeSformer:
    assert isinstance(classifier.encoder, TimeSformer)
    return classifier.encoder


def pixels(classifier: Classifier, normalised: Tensor) -> Tensor:
    """The model takes pixels 0..255: theirs come normalised, so they are taken back, as floats."""
    return encoder_of(classifier).normalise.inverse(normalised)


def test_feature_logits_loss_and_gradients(case: Case, classifier: Classifier) -> None:
    video = pixels(classifier, case.input["video"])
    assert_output(case, "feature", classifier.features(video))
    logits = classifier(video)
    assert_output(case, "logits", logits)
    loss = F.cross_entropy(logits, case.input["label"])
    assert_output(case, "loss", loss)
    classifier.zero_grad()
    loss.backward()
    ours = {name: value.grad for name, value in classifier.named_parameters() if value.grad is not None}
    assert_grad_norms(case, to_theirs(ours, AUTHORS))


def test_a_clip_of_another_size_and_length_takes_the_nearest_positions(case: Case, classifier: Classifier) -> None:
    video = pixels(classifier, case.input["video_resized"])
    assert video.shape[2:] != case.input["video"].shape[2:]
    _, feature = encoder_of(classifier).with_class(video)
    assert_output(case, "logits_resized", classifier.head(feature))


def test_every_weight_goes_out_under_their_name(case: Case, classifier: Classifier) -> None:
    back = to_theirs(classifier.state_dict(), AUTHORS)
    assert back.keys() == case.weight.keys()
    assert all(torch.equal(back[name], case.weight[name]) for name in back)
