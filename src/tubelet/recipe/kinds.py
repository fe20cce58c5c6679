"""The kinds of runs: what each of them is described by."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from tubelet.masks import UNEVEN, All, DecodeRule, LossOn, MaskRule, Tube
from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.methods.classifier import ClassifierSpec
from tubelet.methods.distillation import Distill
from tubelet.methods.predictor import MaskedPredictorSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.nn.mixing import Mixing
from tubelet.recipe.data import Data, LabelledData
from tubelet.recipe.run import FreshHead, Optim, Run, Schedule, StartHead, Views
from tubelet.spec import ByKind, Spec
from tubelet.targets.pixels import NormalisedPixels
from tubelet.targets.unions import TargetSpec
from tubelet.types import ClipShape


def _autoencoder_unless_named(value: Any) -> Any:
    """Recipes from before there was another shape may leave the kind out."""
    return {"kind": "masked_autoencoder", **value} if isinstance(value, dict) else value


Masked = Annotated[
    MaskedAutoencoderSpec | MaskedPredictorSpec,
    Field(discriminator="kind"),
    ByKind,
    BeforeValidator(_autoencoder_unless_named),
]
"""How hidden tokens are predicted: dropped and decoded, or replaced."""


class PretrainRecipe(Spec):
    """A masked pre-training run."""

    kind: Literal["pretrain"] = "pretrain"
    name: str
    seed: int = Field(default=0, ge=0)
    clip: ClipShape = ClipShape()
    data: Data = Data()
    model: Masked = MaskedAutoencoderSpec(encoder=ViTSpec(), decoder=DecoderSpec())
    mask: MaskRule = Tube(ratio=0.9)
    decode: DecodeRule = All()
    loss_on: LossOn = Field(default="hidden", description="which predicted tokens enter the loss: hidden ones, or all")
    target: TargetSpec = NormalisedPixels()
    optim: Optim = Optim()
    schedule: Schedule = Schedule()
    run: Run = Run()
    start: str | None = Field(default=None, description="run or weights to start from")

    @model_validator(mode="after")
    def _autoencoder_sees_equally_many(self) -> PretrainRecipe:
        if isinstance(self.model, MaskedAutoencoderSpec) and isinstance(self.mask, UNEVEN):
            raise ValueError(
                f"mask {self.mask.kind} hides another number of tokens in each clip, and a masked_autoencoder must see "
                "equally many: choose mask=tube, random or frame, or model=masked_predictor"
            )
        return self


class FinetuneRecipe(Spec):
    """A supervised run on labelled clips, from pre-trained weights or from scratch."""

    kind: Literal["finetune"] = "finetune"
    name: str
    seed: int = Field(default=0, ge=0)
    clip: ClipShape = ClipShape()
    data: LabelledData = LabelledData()
    model: ClassifierSpec = ClassifierSpec(encoder=ViTSpec(drop_path=0.1))
    classes: int | None = Field(default=None, ge=2, description="taken from the labels where not given")
    mixing: Mixing = Mixing()
    ema: float | None = Field(default=None, gt=0, lt=1, description="decay of the average of weights")
    optim: Optim = Optim(lr=1e-3, betas=(0.9, 0.999), layer_decay=0.75)
    schedule: Schedule = Schedule(epochs=100, warmup_epochs=5, min_lr=1e-6)
    run: Run = Run()
    views: Views = Views()
    start: str | None = Field(default=None, description="run or weights to start from; none means from scratch")
    start_head: StartHead = FreshHead()
    distill: Distill | None = Field(default=None, description="learn from another classifier, beside or for the labels")
