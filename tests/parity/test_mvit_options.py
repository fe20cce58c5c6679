"""The parity tests of MViTv2 run unchanged on cases of other sizes and options.

The cases are made here by a plain second implementation, which is itself held against the stored ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import plain_mvit
import pytest
import torch
from cases import Shapes, passes_on, random_weights, with_gradients, write_case
from torch.nn import functional as F

from golden import assert_grad_norms, assert_output, load_case
from tubelet.methods.classifier import ClassifierSpec
from tubelet.models.mvit.model import MViT, MViTSpec, MViTStage
from tubelet.types import ClipShape
from tubelet.weights.slowfast.names import CLASSIFIER, MASKFEAT, MEAN_CLASSIFIER
from tubelet.weights.tensors.rename import to_official

CLIP = ClipShape(frames=6, size=48)


def test_the_plain_implementation_is_the_authors_classifier() -> None:
    case = load_case("case06_mvitv2_classify")
    mvit = case.meta["config"]["resolved_MVIT"]
    video, label = case.input["video"], case.input["label"]
    outputs, gradients = with_gradients(case.weight, lambda w: plain_mvit.classification(w, video, label, mvit))
    for name, value in outputs.items():
        if name in case.output:
            assert_output(case, name, value)
    assert_grad_norms(case, gradients)


def test_the_plain_implementation_is_the_authors_pretraining() -> None:
    case = load_case("case06_maskfeat_hog")
    mvit = case.meta["config"]["resolved_MVIT"]
    video, mask, targets = case.input["video"], case.input["mask"], case.output["targets"]
    weights = {name: value for name, value in case.weight.items() if not name.startswith("hogs.")}
    outputs, gradients = with_gradients(weights, lambda w: plain_mvit.prediction(w, video, mask, targets, mvit))
    for name in ("predictions", "loss"):
        assert_output(case, name, outputs[name])
    assert_grad_norms(case, gradients)


def settings(spec: MViTSpec, *, mean: bool) -> dict[str, Any]:
    """As SlowFast would list these options."""
    strides = {stage.start: list(stage.stride) for stage in spec.stages}
    return {
        "MODE": "conv", "NORM": "layernorm", "QKV_BIAS": True, "POOL_FIRST": False, "SEPARATE_QKV": False,
        "NORM_STEM": False, "PATCH_2D": False, "USE_FIXED_SINCOS_POS": False, "DROPOUT_RATE": 0.0,
        "SEP_POS_EMBED": True, "USE_ABS_POS": spec.absolute_positions, "CLS_EMBED_ON": spec.class_token,
        "EMBED_DIM": spec.width, "DEPTH": spec.depth, "NUM_HEADS": spec.heads, "MLP_RATIO": spec.mlp_ratio,
        "DIM_MUL": [[stage.start, float(stage.width)] for stage in spec.stages],
        "HEAD_MUL": [[stage.start, float(stage.heads)] for stage in spec.stages],
        "POOL_Q_STRIDE": [[block, *strides.get(block, [1, 1, 1])] for block in range(spec.depth)],
        "POOL_KV_STRIDE_ADAPTIVE": list(spec.kv_stride), "POOL_KVQ_KERNEL": list(spec.pool_kernel),
        "PATCH_KERNEL": list(spec.patch_kernel), "PATCH_STRIDE": list(spec.patch_stride),
        "PATCH_PADDING": list(spec.patch_padding), "DIM_MUL_IN_ATT": spec.widen_in == "attention",
        "REL_POS_SPATIAL": spec.relative_space, "REL_POS_TEMPORAL": spec.relative_time,
        "RESIDUAL_POOLING": spec.residual_pooling, "USE_MEAN_POOLING": mean,
    }  # fmt: skip


def write_classifier(folder: Path, spec: MViTSpec, *, mean: bool) -> None:
    pooling = "mean" if mean else "class" if spec.class_token else "normed_mean"
    model = ClassifierSpec.model_validate({"encoder": spec, "pooling": pooling}).build(CLIP, 5)
    theirs = to_official(model.state_dict(), MEAN_CLASSIFIER if mean else CLASSIFIER)
    shapes: Shapes = {name: tuple(tensor.shape) for name, tensor in theirs.items()}
    mvit, video, label = settings(spec, mean=mean), torch.randn(2, 3, 6, 48, 48), torch.tensor([1, 4])
    write_case(
        folder, "case06_mvitv2_classify", config={"resolved_MVIT": mvit}, weights=random_weights(shapes),
        inputs={"video": video, "label": label}, detached=[],
        outputs=lambda w: plain_mvit.classification(w, video, label, mvit),
    )  # fmt: skip


def write_maskfeat(folder: Path, stem: str, spec: MViTSpec, *, cells: tuple[int, int, int], values: int) -> None:
    encoder = MViT(spec, CLIP)
    theirs = to_official({f"encoder.{name}": value for name, value in encoder.state_dict().items()}, MASKFEAT)
    shapes: Shapes = {name: tuple(tensor.shape) for name, tensor in theirs.items()}
    shapes |= {f"pred_head.transforms.0.0.{one}": (encoder.out_width,) for one in ("weight", "bias")}
    shapes |= {"pred_head.projections.0.weight": (values, encoder.out_width), "pred_head.projections.0.bias": (values,)}
    mvit, video, mask = settings(spec, mean=False), torch.randn(2, 3, 6, 48, 48), torch.rand(2, *cells) < 0.4
    mask[0, 0, 0, 0] = True
    rows = F.interpolate(mask[:, None].float(), size=tuple(encoder.out_grid))
    targets = torch.randn(int(rows.sum()), values)
    write_case(
        folder, stem, config={"resolved_MVIT": mvit}, weights=random_weights(shapes),
        inputs={"video": video, "mask": mask.long()}, detached=[],
        outputs=lambda w: plain_mvit.prediction(w, video, mask, targets, mvit),
    )  # fmt: skip


PLAIN = MViTSpec(
    width=12,
    depth=3,
    stages=(MViTStage(start=1), MViTStage(start=2)),
    kv_stride=(1, 4, 4),
    widen_in="mlp",
    class_token=False,
)
OPTIONS = {
    "no class token, separate absolute positions, widened in attention": (
        {"widen_in": "attention", "absolute_positions": True, "mlp_ratio": 3.0}, False,
    ),
    "mean of tokens, no positions in time, no residual, heads apart from width, odd grids, last stage fine": (
        {
            "class_token": True, "absolute_positions": True, "relative_time": False, "residual_pooling": False,
            "heads": 2,
            "stages": (MViTStage(start=1, width=1, stride=(1, 4, 4)), MViTStage(start=2, heads=1, stride=(1, 1, 1))),
        },
        True,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "mean"), OPTIONS.values(), ids=OPTIONS.keys())
def test_parity_tests_pass_on_other_sizes_and_options(changes: dict[str, Any], mean: bool, tmp_path: Path) -> None:
    spec = MViTSpec.model_validate({**PLAIN.model_dump(), **changes})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        write_classifier(tmp_path, spec, mean=mean)
        write_maskfeat(tmp_path, "case06_maskfeat_hog", spec, cells=(3, 3, 3), values=20)
        write_maskfeat(tmp_path, "case06_maskmvit_pixel", spec, cells=(3, 1, 1), values=7)
    passes_on(tmp_path, "test_mvit.py")
