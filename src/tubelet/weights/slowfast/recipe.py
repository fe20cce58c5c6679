"""The recipe of a multiscale transformer that has none beside it: a classifier, or MaskFeat's pre-training."""

from __future__ import annotations

from typing import Final

from tubelet.disk.tensors import State
from tubelet.masks import CubeMask, Tube
from tubelet.methods.classifier import ClassifierSpec
from tubelet.methods.predictor import MaskedPredictorSpec
from tubelet.models.mvit.model import MViTSpec
from tubelet.recipe import Data, EncoderRun, FinetuneRecipe, LabelledData, PretrainRecipe, Views
from tubelet.targets.hog import Hog
from tubelet.targets.pixels import FramePixels
from tubelet.types import ClipShape
from tubelet.video.sample import Span
from tubelet.weights.slowfast.spec import multiscale_clip, multiscale_spec
from tubelet.weights.tensors.given import Given

STRIDE: Final = 4
"""Frames from one frame of a clip to the next in most published runs."""
RATIO: Final = 0.4
HEAD: Final = "prediction_head.weight"


def clip_of(state: State, given: Given) -> ClipShape:
    """The clip that its tables are for. ValueError where neither they nor the settings tell."""
    return multiscale_clip(state, given.config, given.file)


def describe(state: State, given: Given, notes: list[str]) -> EncoderRun:
    """The model of these tensors, under our names; what was assumed is added to `notes`.

    ValueError where they are of MaskFeat's pre-training and predict neither HOG nor pixels of this model's tokens.
    """
    spec = multiscale_spec(state, given.config, notes, given.file)
    clip = multiscale_clip(state, given.config, given.file)
    stride = given.config.stride or STRIDE
    if HEAD in state or "encoder.mask_token" in state:
        return _pretraining(state, given, spec, clip=clip, stride=stride)
    pooling = "mean" if "fc_norm.weight" in state else "class" if spec.class_token else "normed_mean"
    return FinetuneRecipe(
        name=given.file.stem,
        clip=clip,
        data=LabelledData(sampler=Span(stride=stride)),
        model=ClassifierSpec.model_validate({"encoder": spec, "pooling": pooling}),
        classes=len(state["head.bias"]) if "head.bias" in state else None,
        views=Views(clips=5, crops=1),
    )


def _pretraining(state: State, given: Given, spec: MViTSpec, *, clip: ClipShape, stride: int) -> PretrainRecipe:
    grid = clip.grid(spec.cube)
    return PretrainRecipe(
        name=given.file.stem,
        clip=clip,
        data=Data(sampler=Span(stride=stride)),
        model=MaskedPredictorSpec(encoder=spec),
        mask=Tube(ratio=RATIO) if grid.h % 2 or grid.w % 2 else CubeMask(ratio=RATIO),
        target=_target(state, given, spec),
    )


def _target(state: State, given: Given, spec: MViTSpec) -> Hog | FramePixels:
    """The one that is as wide as the head; an encoder without its head takes HOG, as published ones."""
    if HEAD not in state:
        return Hog()
    outputs = len(state[HEAD])
    cells = [cell for cell in (8, 4, 16) if spec.cube.height % cell == 0]
    targets: list[Hog | FramePixels] = [*(Hog(cell=cell) for cell in cells), FramePixels()]
    for target in targets:
        if target.width(spec.cube) == outputs:
            return target
    widths = ", ".join(f"{target.kind} {target.width(spec.cube)}" for target in targets)
    raise ValueError(f"{given.file}: predicts {outputs} numbers a token; known targets of such a model: {widths}")
