"""Rates and decay of every parameter of a multiscale classifier are SlowFast's (golden case 11)."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from golden import load_json
from tubelet.methods.classifier import ClassifierSpec
from tubelet.models.mvit.model import MViTSpec, MViTStage
from tubelet.train.optim import parameter_groups
from tubelet.types import ClipShape
from tubelet.weights.slowfast.names import MEAN_CLASSIFIER
from tubelet.weights.tensors.rename import to_official


def test_layer_decay_and_weight_decay_of_every_parameter() -> None:
    case = load_json("case11_slowfast_optim")["layer_decay"]
    rows = {row["parameter"]: (row["layer_decay"], row["weight_decay"]) for row in case["rows"]}
    depth = 1 + max(int(found[1]) for name in rows if (found := re.match(r"blocks\.(\d+)\.", name)))
    starts = [block + 1 for block in range(depth) if f"blocks.{block}.proj.weight" in rows]
    spec = MViTSpec(width=8, depth=depth, stages=tuple(MViTStage(start=block) for block in starts), widen_in="mlp")
    classifier = ClassifierSpec(encoder=spec).build(ClipShape(frames=4, size=32), 3)
    groups = parameter_groups(
        classifier,
        weight_decay=case["config"]["WEIGHT_DECAY"],
        layer_decay=case["config"]["LAYER_DECAY"],
        encoder=classifier.encoder,
    )
    theirs = {ours: name for name, ours in names_between(classifier.state_dict()).items()}
    ours = {theirs[name]: (group.lr_scale, group.weight_decay) for group in groups for name in group.names}
    assert ours == rows


def names_between(state: dict[str, Tensor]) -> dict[str, str]:
    """Their names, each with ours."""
    numbered = {name: torch.tensor(number) for number, name in enumerate(state)}
    listed = list(state)
    return {name: listed[int(number)] for name, number in to_official(numbered, MEAN_CLASSIFIER).items()}
