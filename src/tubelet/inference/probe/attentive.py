"""The attentive probe: a learnt question to the frozen tokens, trained for a fixed number of epochs."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import torch
from jaxtyping import Float16, Float32, Float64, Int64
from pydantic import Field, ValidationError
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from tubelet.disk.lock import write_text
from tubelet.disk.tensors import write_tensors
from tubelet.inference.probe.features import Features
from tubelet.inference.progress import Progress
from tubelet.models.heads import AttentiveClassifier, AttentiveSpec
from tubelet.recipe import Optim
from tubelet.rng import generator, step_rng
from tubelet.spec import Spec, explain
from tubelet.train.optim import Optimizer, parameter_groups
from tubelet.train.schedule import cosine
from tubelet.weights.tensors.files import read_tensors
from tubelet.weights.tensors.strict import filled

WEIGHTS: Final = "attentive.safetensors"
RECORD: Final = "attentive.json"
FEWEST_EPOCHS: Final = 20
MOST_EPOCHS: Final = 200
FEWEST_STEPS: Final = 1000
"""So that a small set is fitted, too: 160 videos of 8 classes are after 1,000 steps and are not after 250."""


class AttentiveTraining(Spec):
    """AdamW with warm-up and a cosine (after V-JEPA, arXiv:2404.08471, appendix on evaluation).

    How long follows from the size of the training set alone, and the last weights are taken: choosing an epoch by
    validation accuracy would make that accuracy too good.
    """

    epochs: int | None = Field(
        default=None, ge=1, description="by default 20, up to 200 where that is under 1,000 steps"
    )
    warmup_ratio: float = Field(default=0.1, ge=0, le=1, description="part of the steps")
    batch_size: int = Field(default=32, ge=1)
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)

    def steps_per_epoch(self, videos: int) -> int:
        """Optimiser steps that see each of so many videos once."""
        return -(-videos // self.batch_size)

    def epochs_for(self, videos: int) -> int:
        """How often so many videos are seen."""
        wanted = -(-FEWEST_STEPS // self.steps_per_epoch(videos))
        return self.epochs or min(max(wanted, FEWEST_EPOCHS), MOST_EPOCHS)


class AttentiveRecord(Spec):
    """What `attentive.json` holds beside the weights."""

    spec: AttentiveSpec
    names: tuple[str, ...]
    training: AttentiveTraining
    fingerprint: str = Field(description="of the encoder whose tokens it reads")


def train_attentive(
    train: Features,
    spec: AttentiveSpec,
    training: AttentiveTraining,
    *,
    classes: int,
    seed: int,
    device: torch.device,
    progress: Progress,
) -> tuple[AttentiveClassifier, float]:
    """The trained probe in eval mode on `device`, and the mean loss of the last epoch.

    Weights and the order of the videos follow from `seed`: the same bits each time on one machine.
    """
    with step_rng(seed, 0):
        probe = spec.build(classes).to(device)
    steps, epochs = training.steps_per_epoch(len(train.labels)), training.epochs_for(len(train.labels))
    warmup = int(training.warmup_ratio * epochs * steps)
    rates = cosine(training.lr, 0.0, steps=epochs * steps, warmup_steps=warmup)
    named = dict(probe.named_parameters())
    groups = parameter_groups(probe, weight_decay=training.weight_decay)
    optimizer = Optimizer(groups, named, Optim(lr=training.lr, betas=(0.9, 0.999)))
    loss = 0.0
    progress.begin("attentive probe", epochs, "epochs")
    try:
        # The quick kernels add up gradients in any order on a GPU; one question per clip costs little without them.
        with sdpa_kernel(SDPBackend.MATH):
            for epoch in range(epochs):
                batches = np.array_split(generator(seed, 1, epoch).permutation(len(train.labels)), steps)
                of_epoch = rates[epoch * steps : (epoch + 1) * steps]
                loss = _epoch(probe, optimizer, train, batches, rates=of_epoch, smoothing=training.label_smoothing)
                progress.advance(1, len(train.labels))
    finally:
        progress.end()
    return probe.eval(), loss


def _epoch(
    probe: AttentiveClassifier,
    optimizer: Optimizer,
    train: Features,
    batches: list[Int64[np.ndarray, "_"]],
    *,
    rates: Float64[np.ndarray, " steps"],
    smoothing: float,
) -> float:
    """One pass over the videos; the mean of its losses."""
    assert train.tokens is not None
    device = probe.query.device
    labels = torch.from_numpy(train.labels)
    total = torch.zeros((), device=device)
    for rows, rate in zip(batches, rates, strict=True):
        logits = probe(_tokens(train.tokens, rows, device))
        loss = F.cross_entropy(logits, labels[rows].to(device), label_smoothing=smoothing)
        loss.backward()
        optimizer.step(float(rate))
        total += loss.detach() * len(rows)
    return float(total) / len(labels)


@torch.inference_mode()
def score_attentive(probe: AttentiveClassifier, val: Features, *, batch_size: int = 32) -> Float64[np.ndarray, "V C"]:
    """Class probabilities of every video."""
    assert val.tokens is not None
    device = probe.query.device
    rows = np.arange(len(val.labels))
    parts = [
        probe(_tokens(val.tokens, rows[start : start + batch_size], device)).double().softmax(1).cpu().numpy()
        for start in range(0, len(rows), batch_size)
    ]
    return np.concatenate(parts)


def write_attentive(folder: Path, probe: AttentiveClassifier, record: AttentiveRecord) -> None:
    """Write weights and record into `folder`."""
    write_tensors(probe.state_dict(), folder / WEIGHTS)
    write_text(folder / RECORD, record.model_dump_json(indent=2) + "\n")


def read_attentive(folder: Path) -> tuple[AttentiveClassifier, AttentiveRecord]:
    """What `write_attentive` wrote, in eval mode on the CPU. ValueError where it is not there or does not fit."""
    path = folder / RECORD
    try:
        record = AttentiveRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as the record of an attentive probe: {error}") from error
    except ValidationError as error:
        raise ValueError(f"{path}: {explain(error, AttentiveRecord)}") from error
    with step_rng(0, 0):  # the weights are replaced; the caller's random state stays as it was
        probe = record.spec.build(len(record.names))
    return filled(probe, read_tensors(folder / WEIGHTS), folder / WEIGHTS), record


def _tokens(
    kept: Float16[np.ndarray, "M N D"], rows: Int64[np.ndarray, " B"], device: torch.device
) -> Float32[Tensor, "B N D"]:
    return torch.from_numpy(np.ascontiguousarray(kept[rows])).to(device).float()
