"""A small classifier learns what a large, frozen one says of the same clips (VideoMAE V2, arXiv:2303.16727, appendix).

The paper follows "A good teacher is patient and consistent" (arXiv:2106.05237): both see the very same clip, cropped
and mixed once, over many epochs.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, Num
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from tubelet.methods.classifier import Classifier, Finetuning
from tubelet.nn.frozen import Frozen
from tubelet.nn.mixing import NO_MIXING, Mixing
from tubelet.nn.pixels import resized
from tubelet.spec import Spec
from tubelet.types import VIDEO, Batch, Output


class Distill(Spec):
    """How a classifier learns from another; defaults as VideoMAE V2 (arXiv:2303.16727): divergence alone, at 3.

    The loss is `divergence_weight * T**2 * KL(teacher || student)`, both softened by the temperature T, plus
    `label_weight` times the cross entropy with the (mixed) labels. T**2 keeps the size of the gradients the same for
    all temperatures (arXiv:1503.02531, section 2); AdamW divides it out again, gradient clipping and labels do not.
    """

    teacher: str | None = Field(
        default=None, description="classifier to learn from: a fine-tuned run, a released file, a Hugging Face folder"
    )
    temperature: float = Field(default=3.0, gt=0, description="the logits of both are divided by it")
    divergence_weight: float = Field(default=1.0, gt=0, description="of the divergence from the teacher")
    label_weight: float = Field(default=0.0, ge=0, description="of the cross entropy with the labels")


class Teacher(Frozen):
    """A frozen classifier that is asked for its logits in the student's order of classes."""

    def __init__(self, classifier: Classifier, *, columns: Int[Tensor, " K"]) -> None:
        """`columns` has for each class of the student its number among those of `classifier`."""
        super().__init__(classifier)
        self.classifier = classifier
        self._columns = columns

    def __call__(self, video: Num[Tensor, "B C T H W"]) -> Float[Tensor, "B K"]:
        """Logits in the student's order of classes, float32. `video` is uint8 or float in 0..255.

        Clips of another size are resized (bilinear, antialiased) to the one that the teacher was trained with;
        ValueError where they have another number of frames.
        """
        self._columns = self._columns.to(video.device)
        return self.ask(resized(video, self.classifier.encoder.clip.size)).float()[:, self._columns]


class Distillation(nn.Module):
    """Divergence of a classifier from its teacher; clips are mixed once in training, for both, plain in evaluation."""

    def __init__(self, classifier: Classifier, mixing: Mixing, *, teacher: Teacher, distill: Distill) -> None:
        super().__init__()
        self.classifier = classifier
        self.mixing = mixing
        self.teacher = teacher
        self.distill = distill

    def forward(self, batch: Batch) -> Output:
        """Mean loss over the clips. `accuracy` and `teacher_accuracy` are against the clip's own label, mixed or not.

        `agreement` is the share of clips where both name the same class.
        """
        labels, weights = batch.labels, self.distill
        assert labels is not None
        mixing = self.mixing if self.training else NO_MIXING
        video, soft = mixing(batch.clips[VIDEO].video, labels, classes=self.classifier.classes)
        logits, taught = self.classifier(video).float(), self.teacher(video)
        loss = weights.divergence_weight * divergence(logits, taught, temperature=weights.temperature)
        if weights.label_weight > 0:
            loss = loss + weights.label_weight * F.cross_entropy(logits, soft)
        with torch.no_grad():
            best, best_taught = logits.argmax(1), taught.argmax(1)
            metrics = {
                "accuracy": (best == labels).float().mean(),
                "teacher_accuracy": (best_taught == labels).float().mean(),
                "agreement": (best == best_taught).float().mean(),
            }
        return Output({VIDEO: loss}, {VIDEO: metrics})

    def count(self, batch: Batch) -> dict[str, float]:
        """How much this batch weighs in a mean over batches: its clips."""
        return {VIDEO: float(batch.sizes[VIDEO])}

    def state_buffers(self) -> set[str]:
        """None: all buffers are constants."""
        return set()


Supervised = Finetuning | Distillation
"""A method that trains `classifier`."""


def divergence(logits: Float[Tensor, "B K"], taught: Float[Tensor, "B K"], *, temperature: float) -> Float[Tensor, ""]:
    """T**2 * KL(teacher || student) of the distributions at temperature T, in nats; the mean over clips."""
    student, teacher = (F.log_softmax(one / temperature, dim=1) for one in (logits, taught))
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)
