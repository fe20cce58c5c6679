"""The functions that a model goes out as to other runtimes, and the clips on which both sides are compared."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Final, NamedTuple

import torch
from jaxtyping import Float, Num, UInt8
from torch import Tensor, nn

from tubelet.data.class_names import names_text
from tubelet.disk.layout import CLASSES_FILE
from tubelet.disk.write import write_text
from tubelet.methods.classifier import Classifier
from tubelet.models.encoders import Encoder
from tubelet.rng import generator
from tubelet.types import ClipShape
from tubelet.weights.checkpoint import Checkpoint

BATCHES: Final = (1, 3)
"""Sizes of batch on which an export is compared with the model that it was made from."""
EXAMPLE_BATCH: Final = 2
"""Of the clip that is traced: sizes 0 and 1 could be taken for constants."""


class EncoderFunction(nn.Module):
    """From bytes to tokens, and to one vector per clip: what the head reads, else the mean of the tokens."""

    def __init__(self, encoder: Encoder, classifier: Classifier | None) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = classifier

    def forward(self, video: Num[Tensor, "B C T H W"]) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B D"]]:
        if self.classifier is not None:
            return self.classifier.tokens_and_features(video)
        tokens = self.encoder(video)
        return tokens, tokens.mean(1)


class ClassifierFunction(nn.Module):
    """From bytes to logits, as a tuple of one."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, video: Num[Tensor, "B C T H W"]) -> tuple[Float[Tensor, "B classes"]]:
        return (self.classifier(video),)


class ExportedPart(NamedTuple):
    """A function from `video`, uint8 [B,3,T,H,W], to `outputs`; normalisation is inside. Its file is called `name`."""

    name: str
    function: nn.Module
    outputs: tuple[str, ...]


def parts(found: Checkpoint) -> list[ExportedPart]:
    """The encoder, and the classifier where the weights have a head; eval mode, on the CPU, float32."""
    if not found.has_head:
        return [ExportedPart("encoder", EncoderFunction(found.build_encoder(), None).eval(), ("tokens", "pooled"))]
    classifier = found.build_classifier()
    return [
        ExportedPart("encoder", EncoderFunction(classifier.encoder, classifier).eval(), ("tokens", "pooled")),
        ExportedPart("classifier", ClassifierFunction(classifier).eval(), ("logits",)),
    ]


def write_classes(found: Checkpoint, folder: Path) -> None:
    """One name a line in the order of the logits, where the classes have names."""
    if found.names is not None and found.has_head:
        write_text(folder / CLASSES_FILE, names_text(found.names))


def noise(clip: ClipShape, *, batch: int = 1) -> UInt8[Tensor, "B C T H W"]:
    """Clips of noise, always the same ones."""
    shape = (batch, 3, clip.frames, clip.size, clip.size)
    return torch.from_numpy(generator(0, batch).integers(0, 256, shape, dtype="uint8"))


def agree(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor], *, tolerance: float, what: str) -> float:
    """The largest absolute difference; ValueError where one is above `tolerance` (times a largest value above 1)."""
    largest = 0.0
    for name, tensor in ours.items():
        difference = float((theirs[name] - tensor).abs().max())
        if not difference <= tolerance * max(1.0, float(tensor.abs().max())):  # a NaN is no agreement
            raise ValueError(f"{what}: {name} differs from torch's by {difference:.1e}; nothing was written")
        largest = max(largest, difference)
    return largest


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, torch's exporters print, log and warn nothing below an error; errors come as exceptions."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            Path(os.devnull).open("w") as nowhere,
            redirect_stdout(nowhere),
            redirect_stderr(nowhere),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
