"""The classifier on an encoder, and its training with mixed clips."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Num
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from tubelet.models.encoders import AnyEncoder
from tubelet.models.heads import linear_head
from tubelet.models.vit import ViTSpec
from tubelet.nn.block import NORM_EPS
from tubelet.nn.drop_path import Dropout
from tubelet.nn.mixing import Mixing
from tubelet.spec import Spec
from tubelet.types import Batch, ClipShape, Output


class ClassifierSpec(Spec):
    """Encoder and head of a `Classifier`; defaults as the fine-tuning scripts of VideoMAE (arXiv:2203.12602)."""

    kind: Literal["classifier"] = "classifier"
    encoder: AnyEncoder = Field(default_factory=ViTSpec)
    pooling: Literal["mean", "first", "class", "normed_mean"] = "mean"
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0, description="before the head")
    norm_eps: float = Field(default=NORM_EPS, gt=0.0, description="of the norm between pooling and head")
    init_scale: float = Field(default=0.001, ge=0.0, description="factor on the head's first weights")

    def build(self, clip: ClipShape, classes: int) -> Classifier:
        """With fresh weights from torch's default generator. ValueError where cube and clip do not fit."""
        return Classifier(self, clip, classes)

    @model_validator(mode="after")
    def _class_token_is_there(self) -> ClassifierSpec:
        if self.pooling == "class" and not self.encoder.has_class_token:
            raise ValueError(f"pooling 'class' needs an encoder with a class token; this {self.encoder.kind} has none")
        return self


class Classifier(nn.Module):
    """Mean of the tokens, `fc_norm`, linear head; with pooling "first" the normed token 0 (V1 `modeling_finetune.py`).

    Token 0 is the first cube of the clip. Pooling "class" reads the normed class token of an encoder that has one,
    "normed_mean" the mean of normed tokens. Names: `encoder`, `fc_norm`, `head`.
    """

    def __init__(self, spec: ClassifierSpec, clip: ClipShape, classes: int) -> None:
        super().__init__()
        self.spec = spec
        self.classes = classes
        mean = spec.pooling == "mean"
        self.encoder = spec.encoder.build(clip, final_norm=not mean)
        width = self.encoder.out_width
        self.fc_norm = nn.LayerNorm(width, eps=spec.norm_eps) if mean else nn.Identity()
        self.dropout = Dropout(spec.dropout)
        self.head = linear_head(width, classes, init_scale=spec.init_scale)

    def forward(self, video: Num[Tensor, "B C T H W"]) -> Float[Tensor, "B {self.classes}"]:
        """Logits. `video` is uint8 or float in 0..255."""
        logits: Tensor = self.head(self.dropout(self.features(video)))
        return logits

    def features(self, video: Num[Tensor, "B C T H W"]) -> Float[Tensor, "B D"]:
        """One vector per clip: what the head reads."""
        return self.tokens_and_features(video)[1]

    def tokens_and_features(
        self, video: Num[Tensor, "B C T H W"]
    ) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B D"]]:
        """The encoder's tokens in raster order, and one vector per clip."""
        if self.spec.pooling != "class":
            tokens = self.encoder(video)
            return tokens, self.pooled(tokens)
        tokens, read = self.encoder.tokens_and_class(video)
        assert read is not None  # the spec was checked
        return tokens, read

    def pooled(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B D"]:
        """One vector per clip from the encoder's tokens, without the class token that pooling "class" reads."""
        pooled = tokens[:, 0] if self.spec.pooling == "first" else tokens.mean(1)
        features: Tensor = self.fc_norm(pooled)  # empty but with pooling "mean": the encoder has a norm then
        return features


class Finetuning(nn.Module):
    """Cross entropy of a classifier; clips and labels are mixed in training, plain in evaluation."""

    def __init__(self, classifier: Classifier, mixing: Mixing) -> None:
        super().__init__()
        self.classifier = classifier
        self.mixing = mixing

    def forward(self, batch: Batch) -> Output:
        """Mean loss over the clips; `accuracy` is against the clip's own label, mixed or not."""
        video, labels = batch.clips["video"].video, batch.labels
        assert labels is not None
        if self.training:
            mixed, soft = self.mixing(video, labels, classes=self.classifier.classes)
            logits = self.classifier(mixed).float()
            loss = F.cross_entropy(logits, soft)
        else:
            logits = self.classifier(video).float()
            loss = F.cross_entropy(logits, labels)
        with torch.no_grad():
            accuracy = (logits.argmax(1) == labels).float().mean()
        return Output(loss, {"accuracy": accuracy})

    def count(self, batch: Batch) -> float:
        """How much this batch weighs in a mean over batches: its clips."""
        return float(batch.size)
