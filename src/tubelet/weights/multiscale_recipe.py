"""The recipe of a multiscale classifier that has none beside it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from tubelet.methods.classifier import ClassifierSpec
from tubelet.recipe import FinetuneRecipe, LabelledData, Views
from tubelet.video.sample import Span
from tubelet.weights.multiscale import multiscale_clip, multiscale_spec
from tubelet.weights.shapes import Given

STRIDE = 4
"""Frames from one frame of a clip to the next in most published runs."""


def multiscale_classifier(state: Mapping[str, Tensor], given: Given, notes: list[str]) -> FinetuneRecipe:
    """The model of these tensors, under our names; what was assumed is added to `notes`.

    ValueError where they are of MaskFeat's pre-training: it predicts features of hidden cubes, and is there to start
    from.
    """
    if any(name.startswith("predict.") or name == "encoder.mask_token" for name in state):
        raise ValueError(
            f"{given.file}: MaskFeat's pre-training, which has no classes; start from it: tubelet finetune --start"
        )
    spec = multiscale_spec(state, given.config, notes, given.file)
    pooling = "mean" if "fc_norm.weight" in state else "class" if spec.class_token else "normed_mean"
    return FinetuneRecipe(
        name=given.file.stem,
        clip=multiscale_clip(state, given.config, given.file),
        data=LabelledData(sampler=Span(stride=given.config.stride or STRIDE)),
        model=ClassifierSpec.model_validate({"encoder": spec, "pooling": pooling}),
        classes=len(state["head.bias"]) if "head.bias" in state else None,
        views=Views(clips=5, crops=1),
    )
