"""`config.json` of a Hugging Face VideoMAE folder: what it says, and the recipe of the same model.

Fields and defaults are those of `VideoMAEConfig` in transformers 5.23; fields that are not listed have no effect here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from tubelet.methods.autoencoder import MaskedAutoencoderSpec
from tubelet.methods.classifier import ClassifierSpec
from tubelet.models.decoder import DecoderSpec
from tubelet.models.vit import ViTSpec
from tubelet.nn.block import mlp_ratio
from tubelet.nn.pixels import IMAGENET_MEAN, IMAGENET_STD
from tubelet.recipe import FinetuneRecipe, LabelledData, PretrainRecipe
from tubelet.spec import explain
from tubelet.targets.pixels import NormalisedPixels, Pixels
from tubelet.types import ClipShape
from tubelet.weights.videomae.recipe import sampling

CONFIG: Final = "config.json"
PROCESSORS: Final = ("preprocessor_config.json", "video_preprocessor_config.json")
MODEL_TYPE: Final = "videomae"
NORM_EPS: Final = 1e-5
"""Of `fc_norm` and of the decoder's last norm in transformers, whatever the config says."""
_NUMBERED: Final = re.compile(r"LABEL_\d+")


class VideoMAEConfig(BaseModel):
    """What a model is built from in transformers, by its names there."""

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)

    image_size: PositiveInt | tuple[PositiveInt, PositiveInt] = 224
    patch_size: PositiveInt | tuple[PositiveInt, PositiveInt] = 16
    num_channels: PositiveInt = 3
    num_frames: PositiveInt = 16
    tubelet_size: PositiveInt = 2
    hidden_size: PositiveInt = 768
    num_hidden_layers: PositiveInt = 12
    num_attention_heads: PositiveInt = 12
    intermediate_size: PositiveInt = 3072
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    qv_bias: bool = True
    qkv_bias: bool | None = None
    """An older name of `qv_bias`; it wins where it is given."""
    use_mean_pooling: bool = True
    decoder_num_attention_heads: PositiveInt = 6
    decoder_hidden_size: PositiveInt = 384
    decoder_num_hidden_layers: PositiveInt = 4
    decoder_intermediate_size: PositiveInt = 1536
    norm_pix_loss: bool = True
    id2label: dict[int, str] | None = None
    """transformers does not write it where there are two classes without names."""

    @property
    def has_biases(self) -> bool:
        return self.qv_bias if self.qkv_bias is None else self.qkv_bias


def read_config(folder: Path) -> VideoMAEConfig:
    """ValueError where it is missing, no JSON, of another kind of model, or says what tubelet cannot build."""
    path = folder / CONFIG
    fields = read_json(path)
    model_type = fields.get("model_type")
    if model_type != MODEL_TYPE:
        raise ValueError(f"{path}: model_type is {model_type!r}; tubelet reads folders of model_type {MODEL_TYPE!r}")
    try:
        config = VideoMAEConfig.model_validate(fields)
    except ValidationError as error:
        raise ValueError(f"{path}: {explain(error, VideoMAEConfig)}") from error
    for name, wanted in (("hidden_act", "gelu"), ("num_channels", 3)):
        if getattr(config, name) != wanted:
            raise ValueError(f"{path}: {name} is {getattr(config, name)!r}; tubelet builds {wanted!r} only")
    for name in ("image_size", "patch_size"):
        _side(config, name, path)
    return config


def type_of(folder: Path) -> object:
    """What the folder's config says that it is; None where there is none that can be read."""
    try:
        return read_json(folder / CONFIG).get("model_type")
    except ValueError:
        return None


def read_json(path: Path) -> dict[str, Any]:
    """ValueError where the file is missing or holds no JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({' '.join(str(error).split())[:120]})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not a JSON object")
    return content


def pretrain_recipe(config: VideoMAEConfig, folder: Path) -> PretrainRecipe:
    """The masked autoencoder of this config; ValueError where its sizes do not fit together."""
    with _says(folder):
        decoder = DecoderSpec(
            width=config.decoder_hidden_size,
            depth=config.decoder_num_hidden_layers,
            heads=config.decoder_num_attention_heads,
            mlp_ratio=mlp_ratio(config.decoder_hidden_size, config.decoder_intermediate_size),
            norm_eps=config.layer_norm_eps,
            final_norm_eps=NORM_EPS,
        )
        encoder = _encoder(config, folder)
        return PretrainRecipe(
            name=_name(folder),
            clip=_clip(config, folder, encoder),
            model=MaskedAutoencoderSpec(encoder=encoder, decoder=decoder),
            target=NormalisedPixels() if config.norm_pix_loss else Pixels(),
        )


def finetune_recipe(config: VideoMAEConfig, folder: Path, *, classes: int) -> FinetuneRecipe:
    """The classifier of this config; ValueError where its sizes do not fit together.

    The config does not say how frames are taken: as in VideoMAE's scripts, spread over the whole video for the classes
    of Something-Something V2, and dense for others.
    """
    sampler, views, _ = sampling(classes)
    with _says(folder):
        encoder = _encoder(config, folder)
        pooling: Literal["mean", "first"] = "mean" if config.use_mean_pooling else "first"
        model = ClassifierSpec(encoder=encoder, pooling=pooling, norm_eps=NORM_EPS)
        return FinetuneRecipe(
            name=_name(folder),
            clip=_clip(config, folder, encoder),
            data=LabelledData(sampler=sampler),
            model=model,
            classes=classes,
            views=views,
        )


def class_names(config: VideoMAEConfig, classes: int, folder: Path) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """Names in the order of the logits, None where the config only numbers them; and notes for the user.

    Names that occur twice get their number behind them. ValueError where the names are not those of `classes` logits.
    """
    if config.id2label is None:
        return None, ()
    if sorted(config.id2label) != list(range(classes)):
        found = f"id2label has {len(config.id2label)} entries"
        raise ValueError(f"{folder / CONFIG}: {found} but the classifier {classes} outputs, numbered from 0")
    given = [" ".join(config.id2label[number].split()) for number in range(classes)]
    if all(not name or _NUMBERED.fullmatch(name) for name in given):
        return None, ()
    repeated = sorted({name for name in given if given.count(name) > 1 or not name})
    names: list[str] = []
    for number, name in enumerate(given):
        name = f"{name} ({number})".strip() if name in repeated else name
        while name in names:
            name += "'"
        names.append(name)
    some = ", ".join(repr(name) for name in repeated[:3])
    notes = (f"class names that are empty or occur twice got their number behind them: {some}",) if repeated else ()
    return tuple(names), notes


def processor_notes(folder: Path) -> tuple[str, ...]:
    """A note where the folder's processor would normalise with other colours than those of ImageNet.

    transformers' own default of VideoMAE's processor is mean 0.5 and deviation 0.5, while the authors train with
    ImageNet's and the pre-training loss in transformers undoes ImageNet's.
    """
    for name in PROCESSORS:
        path = folder / name
        if not path.is_file():
            continue
        fields = read_json(path)
        mean, std = fields.get("image_mean"), fields.get("image_std")
        if (mean is not None and not _near(mean, IMAGENET_MEAN)) or (std is not None and not _near(std, IMAGENET_STD)):
            return (
                f"{name} says mean {mean} and std {std}; VideoMAE is trained with ImageNet's "
                f"({list(IMAGENET_MEAN)}, {list(IMAGENET_STD)}), and these are what tubelet uses",
            )
    return ()


def _encoder(config: VideoMAEConfig, folder: Path) -> ViTSpec:
    return ViTSpec(
        width=config.hidden_size,
        depth=config.num_hidden_layers,
        heads=config.num_attention_heads,
        mlp_ratio=mlp_ratio(config.hidden_size, config.intermediate_size),
        patch=_side(config, "patch_size", folder / CONFIG),
        tubelet=config.tubelet_size,
        norm_eps=config.layer_norm_eps,
    )


def _clip(config: VideoMAEConfig, folder: Path, encoder: ViTSpec) -> ClipShape:
    clip = ClipShape(frames=config.num_frames, size=_side(config, "image_size", folder / CONFIG))
    try:
        clip.grid(encoder.cube)
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG}: {error}") from error
    return clip


@contextmanager
def _says(folder: Path) -> Iterator[None]:
    """Inside, sizes that do not fit together are a ValueError of one line that names the config."""
    try:
        yield
    except ValidationError as error:
        raise ValueError(f"{folder / CONFIG}: {explain(error, PretrainRecipe).removeprefix('recipe: ')}") from error


def _side(config: VideoMAEConfig, name: str, path: Path) -> int:
    value = getattr(config, name)
    height, width = value if isinstance(value, tuple) else (value, value)
    if height != width:
        raise ValueError(f"{path}: {name} is {height} x {width}; tubelet takes squares only")
    return int(height)


def _name(folder: Path) -> str:
    return folder.resolve().name


def _near(values: Any, wanted: tuple[float, ...]) -> bool:
    try:
        return len(values) == len(wanted) and all(abs(a - b) < 1e-3 for a, b in zip(values, wanted, strict=True))
    except TypeError:
        return False
