"""SlowFast's multiscale transformers as ours, built from the metadata of a golden case."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
import yaml
from torch import Tensor, nn

from golden import Case
from tubelet.methods.classifier import Classifier, ClassifierSpec
from tubelet.methods.predictor import MaskedPredictor, MaskedPredictorSpec
from tubelet.models.encoders import Encoder
from tubelet.models.mvit.model import MViT, MViTSpec, MViTStage
from tubelet.targets.hog import Hog
from tubelet.targets.pixels import FramePixels
from tubelet.types import ClipShape
from tubelet.weights.read import read_model
from tubelet.weights.slowfast.names import CLASSIFIER, MASKFEAT, MEAN_CLASSIFIER
from tubelet.weights.tensors.rename import Pairs, from_official, to_official

WAYS: Final = ["converter", "file"]
"""Into a model built from the metadata, or from a file as SlowFast writes it."""


def spec_of(case: Case) -> MViTSpec:
    """Every option of the settings has its field, or is asserted to be what our model always does."""
    mvit = case.meta["config"]["resolved_MVIT"]
    always = {
        "MODE": "conv", "NORM": "layernorm", "QKV_BIAS": True, "POOL_FIRST": False, "SEPARATE_QKV": False,
        "NORM_STEM": False, "PATCH_2D": False, "USE_FIXED_SINCOS_POS": False, "DROPOUT_RATE": 0.0,
    }  # fmt: skip
    assert {name: mvit[name] for name in always} == always
    assert mvit["SEP_POS_EMBED"] or not mvit["USE_ABS_POS"]
    return MViTSpec(
        width=mvit["EMBED_DIM"],
        depth=mvit["DEPTH"],
        heads=mvit["NUM_HEADS"],
        stages=stages_of(mvit),
        widen_in="attention" if mvit["DIM_MUL_IN_ATT"] else "mlp",
        patch_kernel=tuple(mvit["PATCH_KERNEL"]),
        patch_stride=tuple(mvit["PATCH_STRIDE"]),
        patch_padding=tuple(mvit["PATCH_PADDING"]),
        pool_kernel=tuple(mvit["POOL_KVQ_KERNEL"]),
        kv_stride=tuple(mvit["POOL_KV_STRIDE_ADAPTIVE"]),
        relative_space=mvit["REL_POS_SPATIAL"],
        relative_time=mvit["REL_POS_TEMPORAL"],
        residual_pooling=mvit["RESIDUAL_POOLING"],
        class_token=mvit["CLS_EMBED_ON"],
        absolute_positions=mvit["USE_ABS_POS"],
        mlp_ratio=mvit["MLP_RATIO"],
    )


def stages_of(mvit: dict[str, Any]) -> tuple[MViTStage, ...]:
    """Every block is listed with a stride, or it would not pool its queries at all."""
    wider, more = (dict(map(tuple, mvit[name])) for name in ("DIM_MUL", "HEAD_MUL"))
    strides = {block: tuple(stride) for block, *stride in mvit["POOL_Q_STRIDE"]}
    assert set(strides) == set(range(mvit["DEPTH"]))
    starts = sorted({*wider, *more, *(block for block, stride in strides.items() if stride != (1, 1, 1))})
    return tuple(
        MViTStage(start=block, width=wider.get(block, 1), heads=more.get(block, 1), stride=strides[block])
        for block in starts
    )


def pooling_of(case: Case) -> str:
    mvit = case.meta["config"]["resolved_MVIT"]
    if mvit["USE_MEAN_POOLING"]:
        return "mean"
    return "class" if mvit["CLS_EMBED_ON"] else "normed_mean"


def names_of(case: Case) -> Pairs:
    return MEAN_CLASSIFIER if pooling_of(case) == "mean" else CLASSIFIER


def clip_of(case: Case) -> ClipShape:
    _, _, frames, size, _ = case.input["video"].shape
    return ClipShape(frames=frames, size=size)


def build_classifier(case: Case, way: str, folder: Path) -> Classifier:
    """In eval mode, with the authors' weights."""
    if way == "file":
        return read_model(slowfast_file(case, folder)).build_classifier()
    spec = ClassifierSpec.model_validate({"encoder": spec_of(case), "pooling": pooling_of(case)})
    built = spec.build(clip_of(case), len(case.weight["head.projection.bias"]))
    built.load_state_dict(from_official(case.weight, names_of(case)), strict=True)
    return built.eval()


def slowfast_file(case: Case, folder: Path) -> Path:
    """As `slowfast/utils/checkpoint.py` saves: weights, and the settings as text."""
    frames, size = case.input["video"].shape[2:4]
    settings = {
        "DATA": {"NUM_FRAMES": frames, "TRAIN_CROP_SIZE": size, "MEAN": [0.45] * 3, "STD": [0.225] * 3},
        "MVIT": case.meta["config"]["resolved_MVIT"],
    }
    path = folder / "checkpoint_epoch_00200.pyth"
    torch.save({"epoch": 199, "model_state": case.weight, "optimizer_state": {}, "cfg": yaml.safe_dump(settings)}, path)
    return path


def build_maskfeat(case: Case, way: str, folder: Path) -> MaskedPredictor:
    """In eval mode, with the authors' weights."""
    if way == "file":
        return read_model(slowfast_file(case, folder)).build_predictor()
    target = Hog() if case.meta["config"].get("MASK_PRED_HOG", True) else FramePixels()
    built = MaskedPredictorSpec(encoder=spec_of(case)).build(clip_of(case), target)
    built.load_state_dict(from_official(without_filters(case.weight), MASKFEAT), strict=True)
    return built.eval()


def without_filters(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """HOG's fixed kernels are no weights of ours."""
    return {name: value for name, value in weights.items() if not name.startswith("hogs.")}


def gradients(module: nn.Module, pairs: Pairs) -> dict[str, Tensor]:
    """By the authors' names."""
    ours = {name: value.grad for name, value in module.named_parameters() if value.grad is not None}
    return to_official(ours, pairs)


def pixels_of(case: Case, encoder: Encoder) -> Tensor:
    """The model takes pixels 0..255: theirs come normalised, so they are taken back, as floats."""
    assert isinstance(encoder, MViT)
    return encoder.normalise.inverse(case.input["video"])
