"""Image models of Hugging Face that tubelet asks for features: the one seam to transformers.

Only folders on this machine, and only safetensors: nothing is fetched, and no code of a folder is run.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Float
from pydantic import ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn

from tubelet.nn.pixels import Colours
from tubelet.rng import step_rng
from tubelet.weights.huggingface.config import CONFIG, read_json

PROCESSOR: Final = "preprocessor_config.json"
CLASSES: Final = {
    "clip": "CLIPVisionModel",
    "clip_vision_model": "CLIPVisionModel",
    "deit": "DeiTModel",
    "dinov2": "Dinov2Model",
    "dinov2_with_registers": "Dinov2WithRegistersModel",
    "dinov3_vit": "DINOv3ViTModel",
    "vit": "ViTModel",
}
"""The class in transformers of each `model_type`; all put class and register tokens before their patches."""
INTERPOLATES_WHEN_TOLD: Final = frozenset({"clip", "clip_vision_model", "deit", "vit"})
"""The others take pictures of any size."""
REFUSED: Final = ("adapter_config.json",)
"""transformers would fetch what an adapter belongs to."""
_NEVER_READ: Final = ("pooler.", "embeddings.mask_token")
"""May be missing: no patch depends on them."""
_DAMAGE: Final = (
    *(OSError, ValueError, RuntimeError, TypeError, LookupError, AttributeError, ImportError),
    *(ArithmeticError, AssertionError, MemoryError, SafetensorError),
)
"""What transformers raises at folders that are not whole: whatever its own code meets first."""


@dataclass(frozen=True)
class ImageModel:
    """What the folder of an image model says of it; its weights are not read yet."""

    folder: Path
    kind: str
    width: int
    patch: int
    trained_size: int
    colours: Colours

    def load(self) -> nn.Module:
        """From normalised pictures [P,3,H,W] to tokens [P,M,D]; on the CPU. ValueError where it cannot be read."""
        return _HiddenState(_loaded(self.folder, self.kind), tell=self.kind in INTERPOLATES_WHEN_TOLD)


class _HiddenState(nn.Module):
    """The last hidden state alone."""

    def __init__(self, model: nn.Module, *, tell: bool) -> None:
        super().__init__()
        self.model, self.tell = model, tell

    def forward(self, pictures: Float[Tensor, "P 3 H W"]) -> Float[Tensor, "P M D"]:
        if self.tell:
            tokens: Tensor = self.model(pixel_values=pictures, interpolate_pos_encoding=True).last_hidden_state
        else:
            tokens = self.model(pixel_values=pictures).last_hidden_state
        return tokens


def is_image_folder(path: Path) -> bool:
    """Whether it is a Hugging Face folder of anything but a video model that tubelet builds itself."""
    if not (path / CONFIG).is_file():
        return False
    return read_json(path / CONFIG).get("model_type") != "videomae"


def read_image_model(folder: Path) -> ImageModel:
    """What the folder says. ValueError in one line where its model is none that tubelet asks, or says too little."""
    fields = read_json(folder / CONFIG)
    kind = fields.get("model_type")
    if kind not in CLASSES:
        raise ValueError(
            f"{folder}: a Hugging Face folder of {kind!r}, which tubelet does not ask for features; image models that "
            f"it asks: {', '.join(sorted(CLASSES))}"
        )
    for name in REFUSED:
        if (folder / name).exists():
            raise ValueError(f"{folder}: holds an adapter ({name}); merge it into the model's weights first")
    if "quantization_config" in fields:
        raise ValueError(f"{folder}: quantised weights; give the model as it was before")
    vision = fields.get("vision_config", fields)
    sizes = [vision.get(name) if isinstance(vision, dict) else None for name in ("hidden_size", "patch_size")]
    width, patch = (size if type(size) is int and size > 0 else None for size in sizes)
    if width is None or patch is None:
        raise ValueError(f"{folder / CONFIG}: hidden_size and patch_size must be whole numbers, not {sizes}")
    trained = vision.get("image_size")
    return ImageModel(folder, kind, width, patch, trained if type(trained) is int else 0, colours_of(folder))


def colours_of(folder: Path) -> Colours:
    """Mean and deviation that its processor file says. ValueError where there is none, or it says no such thing."""
    path = folder / PROCESSOR
    if not path.is_file():
        raise ValueError(
            f"{folder}: lacks {PROCESSOR}, which says the mean and deviation of colours that its model was trained "
            "with; copy it from where the model came from"
        )
    fields = read_json(path)
    if fields.get("do_normalize") is False:
        return Colours(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    try:
        return Colours.model_validate({"mean": fields.get("image_mean"), "std": fields.get("image_std")})
    except ValidationError as error:
        raise ValueError(f"{path}: image_mean and image_std must be three numbers each") from error


def _loaded(folder: Path, kind: str) -> nn.Module:
    if not list(folder.glob("*.safetensors")):
        raise ValueError(f"{folder}: no .safetensors file in it; tubelet reads no pickles of transformers")
    with _quiet() as transformers, step_rng(0, 0):  # what is missing is drawn anew, then refused
        try:
            model, found = getattr(transformers, CLASSES[kind]).from_pretrained(
                str(folder.absolute()),
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                attn_implementation="sdpa",
                dtype=torch.float32,
                output_loading_info=True,
            )
        except _DAMAGE as error:
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            raise ValueError(f"{folder}: damaged, or not a whole {kind} model ({reason}); copy it again") from error
    missing = sorted(name for name in found["missing_keys"] if not name.startswith(_NEVER_READ))
    if missing:
        raise ValueError(f"{folder}: lacks {missing[0]} and {len(missing) - 1} more tensors of a {kind} model")
    module: nn.Module = model
    return module


@contextmanager
def _quiet() -> Iterator[Any]:
    """transformers, without its bars and reports; ValueError where it is not installed."""
    try:
        import transformers
        from transformers.utils import logging as voice
    except ImportError as error:
        raise ValueError(
            "an image model of Hugging Face is read by transformers, which is not installed: "
            "pip install 'transformers>=5.23'"
        ) from error
    loud, bars = voice.get_verbosity(), voice.is_progress_bar_enabled()
    voice.set_verbosity(logging.CRITICAL)
    voice.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield transformers
    finally:
        voice.set_verbosity(loud)
        if bars:
            voice.enable_progress_bar()  # type: ignore[no-untyped-call]
