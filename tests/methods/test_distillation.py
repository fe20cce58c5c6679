"""Distillation: the loss is the formula, only the student learns, and the method holds no tensor of the teacher."""

import copy

import numpy as np
import pytest
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from tubelet.methods.classifier import Classifier, ClassifierSpec, Finetuning
from tubelet.methods.distillation import Distill, Distillation, Teacher, divergence
from tubelet.models.vit import ViTSpec
from tubelet.nn.mixing import NO_MIXING, Mixing
from tubelet.nn.pixels import resized
from tubelet.types import Batch, Clips, ClipShape

CLIP = ClipShape(frames=4, size=16)
CLASSES = 5
IN_ORDER = torch.arange(CLASSES)


def build(*, width: int, seed: int, clip: ClipShape = CLIP, drop: float = 0.0) -> Classifier:
    encoder = ViTSpec(width=width, depth=2, heads=2, patch=8, drop_path=drop)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ClassifierSpec(encoder=encoder, init_scale=10.0, dropout=drop).build(clip, CLASSES)


def teacher(*, columns: Tensor = IN_ORDER, clip: ClipShape = CLIP) -> Teacher:
    return Teacher(build(width=48, seed=1, clip=clip, drop=0.5), columns=columns)


def method(mixing: Mixing = NO_MIXING, *, taught: Teacher | None = None, **weights: float) -> Distillation:
    student = build(width=24, seed=2)
    return Distillation(student, mixing, teacher=taught or teacher(), distill=Distill.model_validate(weights))


def batch() -> Batch:
    fixed = torch.Generator().manual_seed(0)
    video = torch.randint(0, 256, (4, 3, 4, 16, 16), dtype=torch.uint8, generator=fixed)
    return Batch({"video": Clips(video, torch.arange(4))}, labels=torch.tensor([0, 1, 4, 1]))


def by_hand(student: np.ndarray, taught: np.ndarray, temperature: float) -> float:
    """T^2 * mean over clips of sum_c p_c * ln(p_c / q_c), with p = softmax(taught / T), q = softmax(student / T)."""
    total = 0.0
    for row, given in zip(student / temperature, taught / temperature, strict=True):
        q, p = np.exp(row) / np.exp(row).sum(), np.exp(given) / np.exp(given).sum()
        total += float((p * np.log(p / q)).sum())
    return temperature**2 * total / len(student)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_divergence_is_the_formula(temperature: float) -> None:
    rng = np.random.default_rng(0)
    student, taught = rng.normal(0, 3, (6, 7)), rng.normal(0, 3, (6, 7))
    ours = divergence(torch.from_numpy(student), torch.from_numpy(taught), temperature=temperature)
    assert ours.dtype == torch.float64
    assert float(ours) == pytest.approx(by_hand(student, taught, temperature), rel=1e-12)
    assert float(divergence(torch.from_numpy(taught), torch.from_numpy(taught), temperature=temperature)) == 0.0


def test_the_square_of_the_temperature_keeps_the_size_of_gradients() -> None:
    """Gradient of T^2 KL: T (softmax(s/T) - softmax(t/T)) / B; without T^2 it would fall with the square of T."""
    rng = np.random.default_rng(1)
    taught = torch.from_numpy(rng.normal(0, 1, (3, 4)))
    sizes = []
    for temperature in (10.0, 100.0):
        student = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
        divergence(student, taught, temperature=temperature).backward()
        assert student.grad is not None
        exact = temperature * (0.25 - (taught / temperature).softmax(1)) / 3
        torch.testing.assert_close(student.grad, exact)
        sizes.append(float(student.grad.norm()))
    assert sizes[1] == pytest.approx(sizes[0], rel=0.05)


def test_the_default_is_the_papers_divergence_alone() -> None:
    assert Distill().model_dump() == {
        "teacher": None,
        "temperature": 3.0,
        "divergence_weight": 1.0,
        "label_weight": 0.0,
    }
    data, taught = batch(), teacher()
    one = method(taught=taught)
    video = data.clips["video"].video
    with torch.no_grad():
        expected = divergence(one.classifier(video), taught(video), temperature=3.0)
        assert torch.equal(one(data).loss, expected)


@pytest.mark.parametrize("training", [True, False])
def test_weights_add_divergence_and_the_loss_of_finetuning(training: bool) -> None:
    """With the same draws: labels are mixed and smoothed in training."""
    weighted = method(Mixing(), divergence_weight=0.5, label_weight=2.0)
    losses = []
    for one in (weighted, method(Mixing()), Finetuning(build(width=24, seed=2), Mixing())):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            losses.append(one.train(training)(batch()).loss)
    both, kl, labels = losses
    torch.testing.assert_close(both, 0.5 * kl + 2.0 * labels)


def test_gradients_reach_the_student_only() -> None:
    taught = teacher()
    one = method(taught=taught)
    before = {name: value.clone() for name, value in taught.classifier.state_dict().items()}
    optimiser = torch.optim.AdamW(one.parameters(), lr=0.1)
    one(batch()).loss.backward()
    assert all(value.grad is not None for value in one.parameters())
    optimiser.step()
    frozen = taught.classifier
    assert all(value.grad is None and not value.requires_grad for value in frozen.parameters())
    assert all(value.equal(before[name]) for name, value in frozen.state_dict().items())


def test_the_method_has_the_names_of_finetuning_and_no_tensor_of_the_teacher() -> None:
    one = method()
    plain = Finetuning(one.classifier, NO_MIXING)
    assert one.state_dict().keys() == plain.state_dict().keys()
    assert dict(one.named_parameters()).keys() == dict(plain.named_parameters()).keys()
    assert dict(one.named_buffers()).keys() == dict(plain.named_buffers()).keys()
    assert len(list(one.modules())) == len(list(plain.modules()))


def test_copies_of_a_method_ask_the_same_teacher() -> None:
    one = method()
    copied = copy.deepcopy(one)
    assert copied.teacher is one.teacher
    assert copied.classifier is not one.classifier
    assert torch.equal(copied(batch()).loss, one(batch()).loss)


def test_the_teacher_stays_in_evaluation_mode_and_takes_no_random_draws() -> None:
    one = method().train()
    video = batch().clips["video"].video
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first, state = one.teacher(video), torch.get_rng_state()
        torch.manual_seed(3)
        assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first, one.teacher(video))
    assert not one.teacher(video.float().requires_grad_()).requires_grad


class _Spy(Teacher):
    """Remembers what it was shown."""

    def __call__(self, video: Tensor) -> Tensor:
        self.seen = video
        return super().__call__(video)


@pytest.mark.parametrize("mixing", [Mixing(mixup=0.0), Mixing(cutmix=0.0)], ids=["cutmix", "mixup"])
def test_both_see_the_same_mixed_clip_and_only_in_training(mixing: Mixing) -> None:
    spy = _Spy(build(width=48, seed=1), columns=IN_ORDER)
    one = method(mixing, taught=spy)
    shown: list[Tensor] = []
    one.classifier.register_forward_pre_hook(lambda module, inputs: shown.append(inputs[0]))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        one(batch())
        torch.manual_seed(0)
        mixed, _ = mixing(batch().clips["video"].video, torch.tensor([0, 1, 4, 1]), classes=CLASSES)
    assert spy.seen is shown[0]
    assert torch.equal(spy.seen, mixed)
    assert not torch.equal(spy.seen.float(), batch().clips["video"].video.float())
    one.eval()(batch())
    assert torch.equal(spy.seen, batch().clips["video"].video)


def test_columns_bring_classes_into_the_students_order() -> None:
    video = batch().clips["video"].video
    plain = teacher()(video)
    columns = torch.tensor([3, 0, 4, 1, 2])
    assert torch.equal(teacher(columns=columns)(video), plain[:, columns])


def test_metrics_count_right_answers_and_agreement() -> None:
    one = method().eval()
    with torch.no_grad():
        for classifier, best in ((one.classifier, [1]), (one.teacher.classifier, [4])):
            classifier.head.weight.zero_()
            classifier.head.bias.copy_(F.one_hot(torch.tensor(best), CLASSES)[0] * 9.0)
    metrics = one(batch()).metrics["video"]
    assert {name: float(value) for name, value in metrics.items()} == {
        "accuracy": 0.5,
        "teacher_accuracy": 0.25,
        "agreement": 0.0,
    }
    assert not any(value.requires_grad for value in metrics.values())
    assert one.count(batch()) == {"video": 4.0}


def test_a_teacher_of_another_size_sees_the_clip_resized() -> None:
    larger = teacher(clip=ClipShape(frames=4, size=24))
    video = batch().clips["video"].video
    frames = F.interpolate(
        rearrange(video.float(), "B C T H W -> (B T) C H W"), (24, 24), mode="bilinear", antialias=True
    )
    exact = larger.classifier(rearrange(frames, "(B T) C H W -> B C T H W", T=4))
    assert torch.equal(larger(video), exact)
    assert torch.isfinite(method(taught=larger)(batch()).loss)


def test_resizing_halves_a_picture_by_means_and_leaves_frames_apart() -> None:
    video = torch.zeros(2, 3, 4, 8, 8, dtype=torch.uint8)
    video[1, 2, 3] = 200
    small = resized(video, 4)
    assert small.shape == (2, 3, 4, 4, 4)
    torch.testing.assert_close(small[1, 2, 3], torch.full((4, 4), 200.0))
    assert float(small.sum()) == pytest.approx(200.0 * 16)
    assert resized(video, 8) is video


def test_a_teacher_of_another_length_is_refused() -> None:
    longer = teacher(clip=ClipShape(frames=8, size=16))
    with pytest.raises(ValueError, match="clips of"):
        longer(batch().clips["video"].video)


def test_bf16_on_the_cpu() -> None:
    """The teacher computes in the run's precision, the loss in float32."""
    one = method(Mixing())
    video = batch().clips["video"].video
    with torch.autocast("cpu", torch.bfloat16):
        loss, taught = one(batch()).loss, one.teacher(video)
    assert loss.dtype == taught.dtype == torch.float32
    assert not torch.equal(taught, one.teacher(video))
    loss.backward()


def test_the_forward_never_asks_the_device_for_a_value() -> None:
    """On the meta device there is no value to ask for; the teacher goes where the clips are."""
    one = method(Mixing(), label_weight=1.0).to("meta")
    for _ in range(4):  # mixup and CutMix
        one(batch().to(torch.device("meta"))).loss.backward()


def test_it_learns_what_the_teacher_says_without_labels() -> None:
    """Labels are wrong on purpose: the student ends up with the teacher's answers, not with theirs."""
    one = method()
    data = batch()
    answers = one.teacher(data.clips["video"].video).argmax(1)
    wrong = Batch(data.clips, labels=(answers + 1) % CLASSES)
    optimiser = torch.optim.Adam(one.parameters(), lr=3e-3)
    first = float(one(wrong).loss.detach())
    for _ in range(80):
        optimiser.zero_grad()
        loss = one(wrong).loss
        loss.backward()
        optimiser.step()
    end = one(wrong)
    assert float(end.loss.detach()) < 0.05 * first
    assert float(end.metrics["video"]["agreement"]) == 1.0
    assert float(end.metrics["video"]["accuracy"]) == 0.0
