"""What describes a run: typed, strict, printable as YAML, overridable from the command line, read back from a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import Field, ValidationError

from tubelet.masks import All, DecodeRule, MaskRule, Tube
from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.methods.classifier import ClassifierSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.nn.mixing import Mixing
from tubelet.spec import Spec, did_you_mean, explain
from tubelet.targets.pixels import NormalisedPixels, Target
from tubelet.types import ClipShape
from tubelet.video.augment import Augment, MultiScaleCrop, RandomResizedCrop
from tubelet.video.decoders import Decoder, Reading
from tubelet.video.limits import Limits
from tubelet.video.sample import Sampler, Span, Strided


class Data(Spec):
    """Unlabelled videos for pre-training, and how clips are taken from them."""

    videos: str | None = Field(default=None, description="folder of videos, or a list (txt, csv, jsonl)")
    root: str | None = Field(default=None, description="folder that the paths of a list start from")
    sampler: Sampler = Strided(stride=4)
    augment: Augment = Augment(crop=MultiScaleCrop())
    views: int = Field(default=1, ge=1, description="clips taken from one decoded video (repeated augmentation)")
    cache: str | None = Field(default=None, description="folder for decoded frames; for sets that fit on the disk")
    decoder: Decoder = Field(default="pyav", description="what decodes; torchcodec and nvdec are optional extras")
    workers: int = Field(default=2, ge=0, description="processes that decode")
    max_skipped: float = Field(default=0.25, ge=0, le=1, description="largest share of unreadable videos")
    max_seconds_per_file: float | None = Field(
        default=120.0, gt=0, description="time after which a file that is still being read counts as unreadable"
    )


class LabelledData(Spec):
    """Labelled videos for fine-tuning: lists of `path label`, or folders with one sub-folder a class."""

    train: str | None = None
    val: str | None = None
    root: str | None = Field(default=None, description="folder that the paths of the lists start from")
    class_names: str | None = Field(default=None, description="file with one class name a line")
    sampler: Sampler = Span(stride=4)
    augment: Augment = Augment(crop=RandomResizedCrop())
    views: int = Field(default=1, ge=1, description="clips taken from one decoded video (repeated augmentation)")
    cache: str | None = Field(default=None, description="folder for decoded frames; for sets that fit on the disk")
    decoder: Decoder = Field(default="pyav", description="what decodes; torchcodec and nvdec are optional extras")
    workers: int = Field(default=2, ge=0, description="processes that decode")
    max_skipped: float = Field(default=0.0, ge=0, le=1, description="largest share of unreadable videos")
    max_seconds_per_file: float | None = Field(
        default=120.0, gt=0, description="time after which a file that is still being read counts as unreadable"
    )


class Optim(Spec):
    """AdamW. Rates are per 256 videos a step: the rate used is `lr * batch_size / 256`."""

    lr: float = Field(default=1.5e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    clip_grad: float | None = Field(default=None, gt=0, description="largest global gradient norm")
    layer_decay: float | None = Field(default=None, gt=0, le=1, description="factor on the rate per layer from the top")


class Schedule(Spec):
    """Linear warm-up, then cosine, set anew each step."""

    epochs: int = Field(default=800, ge=1)
    warmup_epochs: float = Field(default=40, ge=0)
    min_lr: float = Field(default=1e-5, ge=0, description="per 256 videos")
    start_lr: float = Field(default=0.0, ge=0, description="per 256 videos")


class Run(Spec):
    """How the work is cut up and kept; nothing here changes what is learnt but `batch_size`."""

    batch_size: int = Field(default=256, ge=1, description="videos in an optimiser step, over all devices")
    accumulate: int = Field(default=1, ge=1, description="pieces each device cuts a step into to save memory")
    parallel: Literal["auto", "ddp", "fsdp"] = Field(
        default="auto", description="under torchrun: weights whole on each device (ddp = auto), or spread (fsdp)"
    )
    lost_after_seconds: float = Field(
        default=60, ge=1, description="under torchrun: silence after which a process is taken for dead"
    )
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    log_every: int = Field(default=10, ge=1, description="steps between two looks at the device")
    save_every: int = Field(default=500, ge=1, description="steps between two checkpoints")
    keep: int = Field(default=2, ge=1, description="checkpoints kept")
    threads: int | None = Field(default=None, ge=1, description="CPU threads of the model; all cores by default")
    compile: Literal["auto", "blocks", "never"] = Field(
        default="auto", description="torch.compile of each block; auto: on a GPU with Triton"
    )


class Views(Spec):
    """Test views of a video: clips in time, crops in space; their scores are averaged."""

    clips: int = Field(default=5, ge=1)
    crops: int = Field(default=3, ge=1)


class PretrainRecipe(Spec):
    """A masked pre-training run."""

    kind: Literal["pretrain"] = "pretrain"
    name: str
    seed: int = Field(default=0, ge=0)
    clip: ClipShape = ClipShape()
    data: Data = Data()
    model: MaskedAutoencoderSpec = MaskedAutoencoderSpec(encoder=ViTSpec(), decoder=DecoderSpec())
    mask: MaskRule = Tube(ratio=0.9)
    decode: DecodeRule = All()
    target: Target = NormalisedPixels()
    optim: Optim = Optim()
    schedule: Schedule = Schedule()
    run: Run = Run()
    start: str | None = Field(default=None, description="run or weights to start from")


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


def reading_of(data: Data | LabelledData) -> Reading:
    """How the videos of a recipe are opened; ValueError where this machine has not got its decoder."""
    if data.decoder == "nvdec" and data.workers > 0:
        raise ValueError("data.decoder=nvdec decodes in the process that trains: set data.workers=0, too")
    return Reading(data.decoder, Limits(seconds=data.max_seconds_per_file))


RecipeT = TypeVar("RecipeT", PretrainRecipe, FinetuneRecipe)


def to_yaml(recipe: PretrainRecipe | FinetuneRecipe) -> str:
    """The whole recipe as YAML; `parse_recipe` reads it back equal."""
    return str(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, width=100))


def write_recipe(recipe: PretrainRecipe | FinetuneRecipe, path: Path) -> None:
    """Write the recipe whole: under a temporary name, synced, renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w") as file:
        file.write(to_yaml(recipe))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_recipe(path: Path) -> PretrainRecipe | FinetuneRecipe:
    """Read a recipe file; ValueError names the file and what is wrong in it."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as a recipe: {error}") from error
    return parse_recipe(text, str(path))


def parse_recipe(text: str, where: str) -> PretrainRecipe | FinetuneRecipe:
    """Check the YAML text of a recipe. `where` names it in errors."""
    try:
        fields = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{where}: not YAML: {_one_line(error)}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{where}: a recipe is a YAML mapping with the field 'kind: pretrain' or 'kind: finetune'")
    kind = fields.get("kind")
    if kind == "pretrain":
        return _check(PretrainRecipe, fields, where)
    if kind == "finetune":
        return _check(FinetuneRecipe, fields, where)
    raise ValueError(f"{where}: kind is {kind!r}, choose from pretrain, finetune")


def override(recipe: RecipeT, changes: Sequence[str]) -> RecipeT:
    """The recipe with `field.field=value` changes, values read as YAML.

    A part tagged by `kind` may be named alone (`mask=random`): its other fields then take their defaults.
    ValueError for an unknown field (with the nearest known one) or a value that does not fit.
    """
    fields = recipe.model_dump(mode="json")
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals:
            raise ValueError(f"{change!r}: write a change as field=value, such as run.batch_size=64")
        _set(fields, name.strip(), _value(text, change))
    return _check(type(recipe), fields, recipe.name)


def _value(text: str, change: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{change!r}: the value is not YAML: {_one_line(error)}") from error
    if isinstance(value, str):  # YAML 1.1 reads 1e-3 as text
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _set(fields: dict[str, Any], name: str, value: Any) -> None:
    *path, last = name.split(".")
    here = fields
    for part in path:
        if part not in here:
            raise ValueError(f"unknown field {name!r}; {did_you_mean(part, here)}")
        if here[part] is None:  # an optional part that was absent: its fields are checked with the whole recipe
            here[part] = {}
        here = here[part]
        if not isinstance(here, dict):
            raise ValueError(f"unknown field {name!r}: {part!r} has no fields")
    before = here.get(last)
    if isinstance(value, str) and isinstance(before, dict) and "kind" in before:
        value = {"kind": value}  # so that `mask.ratio=0.8` may follow `mask=random`
    here[last] = value  # the whole recipe is checked afterwards, unknown names too


def _check(model: type[RecipeT], fields: dict[str, Any], where: str) -> RecipeT:
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise ValueError(f"{where}: {explain(error, model)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
