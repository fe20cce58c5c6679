"""The kinds of single runs: what each of them is described by. `SINGLE_RUNS` has all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BeforeValidator, Field, model_validator

from tubelet.masks import All, DecodeRule, LossOn, MaskRule, Tube
from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.methods.classifier import ClassifierSpec
from tubelet.methods.distillation import Distill
from tubelet.methods.predictor import MaskedPredictorSpec
from tubelet.methods.tasks import AnyTask, Classes
from tubelet.models.base import EncoderSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.nn.mixing import Mixing
from tubelet.recipe.data import Data, LabelledData, Streams
from tubelet.recipe.run import (
    FreshHead,
    Inflate,
    Optim,
    Run,
    SameClasses,
    Schedule,
    StartHead,
    StartPart,
    Views,
)
from tubelet.recipe.single import SingleRun, check_one_teacher
from tubelet.spec import ByKind, Spec, replace
from tubelet.targets.pixels import NormalisedPixels
from tubelet.targets.unions import AnyTarget
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


class PretrainRecipe(SingleRun):
    """A masked pre-training run."""

    does: ClassVar[str] = "pre-trains"
    gives: ClassVar[str] = "an encoder without classes"

    kind: Literal["pretrain"] = "pretrain"
    name: str
    seed: int = Field(default=0, ge=0)
    clip: ClipShape = ClipShape()
    data: Data = Data()
    model: Masked = MaskedAutoencoderSpec(encoder=ViTSpec(), decoder=DecoderSpec())
    mask: MaskRule = Tube(ratio=0.9)
    decode: DecodeRule = All()
    loss_on: LossOn = Field(default="hidden", description="which predicted tokens enter the loss: hidden ones, or all")
    target: AnyTarget = NormalisedPixels()
    optim: Optim = Optim()
    schedule: Schedule = Schedule()
    run: Run = Run()
    start: str | None = Field(default=None, description="run or weights to start from")
    start_part: StartPart = Field(default="whole", description="what is taken of them: all, or the encoder alone")
    inflate: Inflate = Field(default="centre", description="frame that the kernel of an image model goes to, or mean")
    streams: Streams = Field(default_factory=dict)

    @model_validator(mode="after")
    def _autoencoder_sees_equally_many(self) -> PretrainRecipe:
        if isinstance(self.model, MaskedAutoencoderSpec) and self.mask.uneven:
            raise ValueError(
                f"mask {self.mask.kind} hides another number of tokens in each clip, and a masked_autoencoder must see "
                "equally many: choose mask=tube, random or frame, or model=masked_predictor"
            )
        return self

    @property
    def encoder(self) -> EncoderSpec:
        """What it trains."""
        return self.model.encoder

    @property
    def teacher(self) -> str | None:
        """The network that its target asks, those of several in one line."""
        return ", ".join(spec.teacher for spec in self.target.specs if spec.teacher is not None) or None

    def with_teacher(self, teacher: str) -> PretrainRecipe:
        """The recipe whose target asks the network at this path."""
        return replace(self, target=self.target.with_teacher(teacher))

    def networks(self) -> Mapping[str, Spec]:
        """Encoder, and decoder where there is one and it may start from another."""
        model = self.model
        parts: dict[str, Spec] = {"model.encoder": model.encoder}
        if self.start_part == "encoder":
            return parts
        return parts | {"model.decoder": model.decoder} if isinstance(model, MaskedAutoencoderSpec) else parts

    def check_start(self, where: str, before: SingleRun | None, name: str) -> None:
        """All of its weights come from a pre-training run of the same shape, or the encoder alone from any model."""
        hint = "; start_part=encoder takes its encoder alone"
        if before is not None and self.start_part == "whole":
            if not isinstance(before, PretrainRecipe):
                raise ValueError(f"{where} pre-trains and cannot start from {name!r}, {before.gives}{hint}")
            if self.model.kind != before.model.kind:
                raise ValueError(
                    f"{where} is a {self.model.kind} and cannot start from {name!r}, a {before.model.kind}{hint}"
                )
        super().check_start(where, before, name)

    def check_teacher(self, where: str, before: SingleRun, name: str) -> None:
        """Features may be those of any stage; classes need one that has some."""
        learning = [spec for spec in self.target.specs if spec.asks in ("features", "classes")]
        if not learning:
            kinds = " + ".join(spec.kind for spec in self.target.specs)
            raise ValueError(
                f"{where} has a teacher, stage {name!r}, but its target {kinds} asks no stage: "
                "set target=features or target=pseudo_labels"
            )
        unnamed = [spec for spec in learning if spec.teacher is None]
        check_one_teacher(where, None if unnamed else learning[0].teacher, name)
        if any(spec.asks == "classes" for spec in unnamed):
            _check_has_classes(where, before, name)


class FinetuneRecipe(SingleRun):
    """A supervised run on labelled clips, from pre-trained weights or from scratch."""

    does: ClassVar[str] = "trains on labels"
    gives: ClassVar[str] = "a classifier without a decoder"
    can_be_tested: ClassVar[bool] = True

    kind: Literal["finetune"] = "finetune"
    name: str
    seed: int = Field(default=0, ge=0)
    clip: ClipShape = ClipShape()
    data: LabelledData = LabelledData()
    model: ClassifierSpec = ClassifierSpec(encoder=ViTSpec(drop_path=0.1))
    task: AnyTask = Field(default=Classes(), description="what is learnt of the labels")
    classes: int | None = Field(default=None, ge=2, description="taken from the labels where not given")
    mixing: Mixing = Mixing()
    ema: float | None = Field(default=None, gt=0, lt=1, description="decay of the average of weights")
    optim: Optim = Optim(lr=1e-3, betas=(0.9, 0.999), layer_decay=0.75)
    schedule: Schedule = Schedule(epochs=100, warmup_epochs=5, min_lr=1e-6)
    run: Run = Run()
    views: Views = Views()
    start: str | None = Field(default=None, description="run or weights to start from; none means from scratch")
    start_head: StartHead = FreshHead()
    inflate: Inflate = Field(default="centre", description="frame that the kernel of an image model goes to, or mean")
    distill: Distill | None = Field(default=None, description="learn from another classifier, beside or for the labels")

    @model_validator(mode="after")
    def _needs_classes(self) -> FinetuneRecipe:
        if not self.task.gives_classes:
            given = {
                "classes": self.classes is not None,
                "distill": self.distill is not None,
                "start_head=same_classes": isinstance(self.start_head, SameClasses),
                "data.sources": bool(self.data.sources),
                "data.class_names": self.data.class_names is not None,
            }
            for what, is_given in given.items():
                if is_given:
                    raise ValueError(f"{what} is for labels that are classes, and the task {self.task.kind} has none")
        return self

    @property
    def outputs(self) -> int | None:
        """How many numbers the head gives; None where the labels are to tell."""
        return self.task.outputs(self.classes)

    @property
    def encoder(self) -> EncoderSpec:
        """What it trains under its head."""
        return self.model.encoder

    @property
    def gives_classes(self) -> bool:
        """Whether its task has some."""
        return self.task.gives_classes

    @property
    def teacher(self) -> str | None:
        """The classifier that it learns from."""
        return None if self.distill is None else self.distill.teacher

    def with_teacher(self, teacher: str) -> FinetuneRecipe:
        """The recipe that learns from the classifier at this path."""
        assert self.distill is not None
        return replace(self, distill=replace(self.distill, teacher=teacher))

    def with_counts_of(self, kept: SingleRun) -> FinetuneRecipe:
        """The recipe with the number of classes that the run `kept` found in its labels."""
        if self.classes is None and isinstance(kept, FinetuneRecipe):
            return replace(self, classes=kept.classes)
        return self

    def networks(self) -> Mapping[str, Spec]:
        """The encoder; the head fits whatever classes there are."""
        return {"model.encoder": self.model.encoder}

    def check_start(self, where: str, before: SingleRun | None, name: str) -> None:
        """The encoder comes from the start; a head by the names of classes needs some there."""
        maps_classes = isinstance(self.start_head, SameClasses)
        if maps_classes and before is None and self.start is None:
            raise ValueError(f"{where}: start_head=same_classes, but it starts from nothing; name a stage or set start")
        if maps_classes and before is not None and not before.gives_classes:
            raise ValueError(f"{where}: start_head=same_classes, but {name!r} {before.does} and has no classes")
        super().check_start(where, before, name)

    def check_teacher(self, where: str, before: SingleRun, name: str) -> None:
        """A recipe that distils may learn from any stage with classes."""
        if self.distill is None:
            raise ValueError(f"{where} has a teacher, stage {name!r}, but does not distil: set distill={{}} in it")
        check_one_teacher(where, self.distill.teacher, name)
        _check_has_classes(where, before, name)


def _check_has_classes(where: str, before: SingleRun, name: str) -> None:
    if not before.gives_classes:
        raise ValueError(f"{where} learns classes, but {name!r}, its teacher, {before.does} and has none")


EncoderRun = PretrainRecipe | FinetuneRecipe
"""The kinds of runs whose model has an encoder that other runs, exports and embeddings take."""

SINGLE_RUNS: Final[dict[str, type[SingleRun]]] = {"pretrain": PretrainRecipe, "finetune": FinetuneRecipe}
"""The recipe of every kind of single run. What runs it stands in `tubelet.runs.kinds.RUNS`."""


def encoder_run(recipe: SingleRun, where: str) -> EncoderRun:
    """The recipe of a run that has trained an encoder. ValueError for other kinds; `where` names it in the message."""
    if isinstance(recipe, EncoderRun):
        return recipe
    raise ValueError(f"{where}: a {recipe.kind} run, which has no encoder; give a run that has one")


def kinds_in_words() -> str:
    """`kind: pretrain or finetune`, for messages."""
    return f"kind: {' or '.join(SINGLE_RUNS)}"
