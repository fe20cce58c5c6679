"""The parity tests of TimeSformer run unchanged on cases of other sizes, made by a plain second implementation.

That one is itself held against the stored cases.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import plain_timesformer
import pytest
import torch
from cases import Shapes, passes_on, random_weights, with_gradients, write_case
from test_timesformer import KINDS

from golden import assert_grad_norms, assert_output, load_case
from tubelet.methods.classifier import ClassifierSpec
from tubelet.models.timesformer import TimeSformerSpec
from tubelet.types import ClipShape
from tubelet.weights.timesformer.names import AUTHORS, to_theirs


@pytest.mark.parametrize("kind", KINDS)
def test_the_plain_implementation_is_the_authors(kind: str) -> None:
    case = load_case(f"case09_timesformer_{kind}")
    model, video, label = case.meta["config"]["model"], case.input["video"], case.input["label"]
    resized = case.input["video_resized"]
    outputs, gradients = with_gradients(
        case.weight, lambda w: plain_timesformer.classification(w, video, label, model, resized=resized)
    )
    for name, value in outputs.items():
        assert_output(case, name, value)
    assert_grad_norms(case, gradients)


def write(folder: Path, kind: str, model: dict[str, Any]) -> None:
    model = {**model, "attention_type": kind}
    encoder = TimeSformerSpec(
        width=model["embed_dim"], depth=model["depth"], heads=model["num_heads"], attention=KINDS[kind],
        mlp_ratio=model["mlp_ratio"], patch=model["patch_size"],
    )  # fmt: skip
    frames, size, patch = model["num_frames"], model["img_size"], model["patch_size"]
    with torch.device("meta"):
        spec = ClassifierSpec(encoder=encoder, pooling="class")
        state = spec.build(ClipShape(frames=frames, size=size), model["num_classes"]).state_dict()
    shapes: Shapes = {name: tuple(value.shape) for name, value in to_theirs(state, AUTHORS).items()}
    video, label = torch.randn(2, 3, frames, size, size), torch.tensor([1, 4])
    resized = torch.randn(1, 3, frames + 3, size, size + 2 * patch)
    write_case(
        folder, f"case09_timesformer_{kind}", config={"model": model}, weights=random_weights(shapes),
        inputs={"video": video, "label": label, "video_resized": resized}, detached=[],
        outputs=lambda w: plain_timesformer.classification(w, video, label, model, resized=resized),
    )  # fmt: skip


SIZES: dict[str, dict[str, Any]] = {
    "six frames of 48": {"num_frames": 6, "img_size": 48, "embed_dim": 36, "num_heads": 3, "depth": 2},
    "one frame, other patches": {"num_frames": 1, "img_size": 20, "patch_size": 4, "mlp_ratio": 3.0, "num_heads": 1},
}


@pytest.mark.parametrize("changes", SIZES.values(), ids=SIZES.keys())
def test_parity_tests_pass_on_other_sizes(changes: dict[str, Any], tmp_path: Path) -> None:
    model = {
        "depth": 3, "drop_path_rate": 0.0, "embed_dim": 24, "img_size": 48, "in_chans": 3, "mlp_ratio": 4.0,
        "norm_layer": "LayerNorm(eps=1e-6)", "num_classes": 5, "num_frames": 6, "num_heads": 2, "patch_size": 8,
        "qkv_bias": True, **changes,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for kind in KINDS:
            write(tmp_path, kind, model)
    passes_on(tmp_path, "test_timesformer.py")
