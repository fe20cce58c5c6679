"""The classifier and its fine-tuning."""

import pytest
import torch

from tubelet.methods.classifier import Classifier, ClassifierSpec, Finetuning
from tubelet.models.vit import ViTSpec
from tubelet.nn.mixing import NO_MIXING, Mixing
from tubelet.types import Batch, Clips, ClipShape

CLIP = ClipShape(frames=4, size=16)
ENCODER = ViTSpec(width=24, depth=2, heads=2, patch=8)


def build(spec: ClassifierSpec | None = None) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return (spec or ClassifierSpec(encoder=ENCODER)).build(CLIP, 5)


def batch() -> Batch:
    fixed = torch.Generator().manual_seed(0)
    video = torch.randint(0, 256, (4, 3, 4, 16, 16), dtype=torch.uint8, generator=fixed)
    return Batch({"video": Clips(video, torch.arange(4))}, labels=torch.tensor([0, 1, 4, 1]))


def test_mean_pooling_norms_the_mean_and_first_takes_token_0() -> None:
    video = batch().clips["video"].video
    mean = build()
    torch.testing.assert_close(mean.features(video), mean.fc_norm(mean.encoder(video).mean(1)))
    first = build(ClassifierSpec(encoder=ENCODER, pooling="first"))
    torch.testing.assert_close(first.features(video), first.encoder(video)[:, 0])
    names = {name.split(".")[1] if name.startswith("encoder") else name.split(".")[0] for name in first.state_dict()}
    assert names == {"patch_embed", "blocks", "norm", "head"}
    assert not [name for name in mean.state_dict() if name.startswith("encoder.norm")]


def test_the_head_starts_near_even() -> None:
    classifier = build()
    probabilities = classifier(batch().clips["video"].video).softmax(1)
    torch.testing.assert_close(probabilities, torch.full((4, 5), 0.2), atol=1e-3, rtol=0)
    assert float(classifier.head.weight.detach().std()) == pytest.approx(2e-5, rel=0.3)


def test_dropout_sits_before_the_head_in_training_only() -> None:
    classifier, video = (
        build(ClassifierSpec(encoder=ENCODER, dropout=0.5, init_scale=1.0)),
        batch().clips["video"].video,
    )
    assert not torch.equal(classifier(video), classifier(video))
    classifier.eval()
    assert torch.equal(classifier(video), classifier(video))


def test_finetuning_mixes_in_training_and_not_in_evaluation() -> None:
    data = batch()
    method = Finetuning(build(ClassifierSpec(encoder=ENCODER, init_scale=1.0)), Mixing())
    plain = Finetuning(method.classifier, NO_MIXING)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mixed = method(data).loss
    assert not torch.equal(mixed, plain(data).loss)
    method.eval()
    torch.testing.assert_close(method(data).loss, plain(data).loss)


def test_accuracy_is_a_detached_share() -> None:
    method = Finetuning(build(), NO_MIXING)
    with torch.no_grad():
        method.classifier.head.bias.copy_(torch.tensor([0.0, 9.0, 0.0, 0.0, 0.0]))
    output = method(batch())
    assert float(output.metrics["video"]["accuracy"]) == 0.5
    assert not output.metrics["video"]["accuracy"].requires_grad
    assert method.count(batch()) == {"video": 4.0}


def test_it_learns_four_clips_by_heart() -> None:
    data = batch()
    method = Finetuning(build(), NO_MIXING)
    optimiser = torch.optim.Adam(method.parameters(), lr=3e-3)
    for _ in range(60):
        optimiser.zero_grad()
        loss = method(data).loss
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.3


@pytest.mark.parametrize("mixing", [Mixing(mixup=0.0), Mixing(cutmix=0.0)], ids=["cutmix", "mixup"])
def test_bf16_on_the_cpu(mixing: Mixing) -> None:
    method = Finetuning(build(), mixing)
    with torch.autocast("cpu", torch.bfloat16):
        loss = method(batch()).loss
    assert loss.dtype == torch.float32
    loss.backward()


def test_published_number_of_parameters_for_kinetics() -> None:
    with torch.device("meta"):
        classifier = ClassifierSpec().build(ClipShape(), 400)
    assert round(sum(value.numel() for value in classifier.parameters()) / 1e6, 2) == 86.53


def test_the_forward_never_asks_the_device_for_a_value() -> None:
    """On the meta device there is no value to ask for: any `.item()` or data-dependent shape would raise."""
    spec = ClassifierSpec(encoder=ViTSpec(width=24, depth=2, heads=2, patch=8, drop_path=0.2), dropout=0.1)
    with torch.device("meta"):
        method = Finetuning(spec.build(CLIP, 5), Mixing())
    for _ in range(4):  # mixup and CutMix
        method(batch().to(torch.device("meta"))).loss.backward()
