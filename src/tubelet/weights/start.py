"""Weights to start from: of a run, of a checkpoint folder, of a file, or of VideoMAE's released checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from torch import nn

from tubelet.methods.classifier import Classifier
from tubelet.weights.files import read_tensors
from tubelet.weights.fit import check_fit
from tubelet.weights.rename import State
from tubelet.weights.videomae import CONVERTERS, from_official, kind_of_official

MODEL_FILE: Final = "model.safetensors"
WRAPPER: Final = "classifier."  # in front of all names where a fine-tuning method was saved whole
ENCODER: Final = "encoder."


@dataclass(frozen=True)
class Started:
    """What became of the names: `loaded` into the model, `dropped` from the file, `fresh` in the model."""

    file: Path
    loaded: tuple[str, ...]
    dropped: tuple[str, ...]
    fresh: tuple[str, ...]


def weights_file(path: Path) -> Path:
    """The file that holds the weights: of a finished run, of its newest checkpoint, of a folder with one, or itself.

    ValueError where there is none.
    """
    if not path.exists():
        raise ValueError(
            f"{path}: no such file or folder; give a run folder, a checkpoint folder or a .safetensors file"
        )
    if path.is_file():
        return path
    checkpoints = sorted(path.glob(f"checkpoints/step-*/{MODEL_FILE}"), key=lambda file: _step(file.parent))
    for file in (path / "model" / MODEL_FILE, path / MODEL_FILE, *reversed(checkpoints)):
        if file.is_file():
            return file
    raise ValueError(f"{path}: holds no model/{MODEL_FILE}, no checkpoints/step-*/{MODEL_FILE} and no {MODEL_FILE}")


def all_weights(path: Path) -> State:
    """Every tensor under the names of our `MaskedAutoencoder` or `Classifier`; released files are renamed.

    ValueError where the file is missing, cut short or has no encoder.
    """
    file = weights_file(path)
    state = {name.removeprefix(WRAPPER): tensor for name, tensor in read_tensors(file).items()}
    kind = kind_of_official(state)
    if kind is not None:
        state = from_official(state, CONVERTERS[kind], source=str(file))
    if not any(name.startswith(ENCODER) for name in state):
        some = ", ".join(sorted(state)[:3]) or "nothing"
        raise ValueError(f"{file}: not a checkpoint of tubelet or VideoMAE: no encoder among its tensors ({some})")
    return state


def encoder_weights(path: Path) -> State:
    """The tensors of the encoder, by their names in `ViT`; the final norm is among them where the file has one."""
    return {name.removeprefix(ENCODER): t for name, t in all_weights(path).items() if name.startswith(ENCODER)}


def start_classifier(classifier: Classifier, path: Path) -> Started:
    """Put a pre-trained encoder under a classifier, strictly; `fc_norm` and head stay fresh.

    Fine-tuning reads the mean of the tokens through its own norm, so the encoder's final norm is dropped (V1
    `run_class_finetuning.py`), unless the classifier has it (pooling "first").
    """
    file = weights_file(path)
    state = all_weights(path)
    wanted = classifier.state_dict()
    final_norm = isinstance(classifier.encoder.norm, nn.LayerNorm)
    used = {
        n: t for n, t in state.items() if n.startswith(ENCODER) and (final_norm or not n.startswith("encoder.norm."))
    }
    fresh = tuple(n for n in wanted if not n.startswith(ENCODER) or (n.startswith("encoder.norm.") and n not in used))
    check_fit(used, {n: t for n, t in wanted.items() if n not in fresh}, file)
    classifier.load_state_dict(used, strict=False)
    return Started(file, tuple(used), tuple(n for n in state if n not in used), fresh)


def start_whole(method: nn.Module, path: Path) -> Started:
    """Load every tensor of a method of the same kind and size: to go on pre-training from another run."""
    file = weights_file(path)
    state = all_weights(path)
    check_fit(state, method.state_dict(), file)
    method.load_state_dict(state, strict=True)
    return Started(file, tuple(state), (), ())


def _step(folder: Path) -> int:
    number = folder.name.removeprefix("step-")
    return int(number) if number.isdigit() else -1
