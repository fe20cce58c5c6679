"""Features made of numbers, a model of random weights, and a watch that remembers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from toy_labelled import toy_recipe
from toy_run import CLIP, pretrain_recipe

from tubelet.inference.probe.features import ProbeFeatures
from tubelet.rng import step_rng
from tubelet.runs.finetune import write_classifier
from tubelet.spec import replace
from tubelet.train.checkpoint.folder import write_model


@dataclass
class Seen:
    """A progress that remembers what it was told."""

    lines: list[str] = field(default_factory=list)
    begun: list[tuple[str, int, str]] = field(default_factory=list)
    done: int = 0
    clips: int = 0
    ended: int = 0

    def begin(self, what: str, total: int, unit: str) -> None:
        self.begun.append((what, total, unit))

    def advance(self, done: int, clips: int) -> None:
        self.done += done
        self.clips += clips

    def say(self, line: str) -> None:
        self.lines.append(line)

    def end(self) -> None:
        self.ended += 1


def features(each: int, *, classes: int = 3, gap: float = 4.0, seed: int = 0, width: int = 12) -> ProbeFeatures:
    """`each` videos of every class around its own corner; with `gap` 0 the classes are alike.

    The class is in the mean of the tokens and in every second token; all else is noise of deviation 1/4.
    """
    rng = np.random.default_rng(seed)
    labels = np.tile(np.arange(classes), each)
    corner = gap * np.eye(width)[labels]
    pooled = (corner + 0.25 * rng.standard_normal((len(labels), width))).astype(np.float32)
    tokens = 0.25 * rng.standard_normal((len(labels), 6, width))
    tokens[:, ::2] += corner[:, None]
    return ProbeFeatures(pooled, tokens.astype(np.float16), labels, np.arange(len(labels)), ())


def shuffled(found: ProbeFeatures, seed: int = 1) -> ProbeFeatures:
    """The same with labels that mean nothing."""
    labels = np.random.default_rng(seed).permutation(found.labels)
    return ProbeFeatures(found.pooled, found.tokens, labels, found.index, found.skipped)


def pretrained_run(folder: Path, *changes: str) -> Path:
    """A run folder with an autoencoder of random weights."""
    recipe = pretrain_recipe(*changes)
    with step_rng(0, 0):
        method = recipe.model.build(CLIP, recipe.target)
    write_model(folder, recipe, method.state_dict())
    return folder


def classifier_run(folder: Path, names: tuple[str, ...], **changes: object) -> Path:
    """A run folder with a classifier of random weights that has an opinion."""
    recipe = toy_recipe(classes=len(names), **changes)
    recipe = replace(recipe, model=replace(recipe.model, init_scale=1.0))
    with step_rng(0, 0):
        classifier = recipe.model.build(recipe.clip, len(names))
        torch.nn.init.normal_(classifier.head.weight, std=1.0)
    write_classifier(folder, recipe, classifier, names)
    return folder
